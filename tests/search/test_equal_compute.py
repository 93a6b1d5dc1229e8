"""Studies whose trials get equal seconds: what they resolve to, and one trained without Ray."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kdscale.analysis import markdown
from kdscale.analysis._compute import COMPUTE as REPORTED
from kdscale.search import COMPUTE, Study
from kdscale.search._queue import CohortQueue
from kdscale.search._storage import _definition
from kdscale.training import _timed

from .here import swept_here
from .studies import make_study

TASK = {
    "data": {"name": "icons100", "train_images": 128},
    "teacher": {
        "model": "resnet8",
        "weights": "package:icons100-resnet8",
        "cache": {"enabled": False},
        "inference": "plain",
    },
    "student": {"model": "resnet8", "args": {"width": 4}},
    "recipe": {"batch_size": 32},
}


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every reading of the clock take a tenth of a second, however busy the machine is."""
    readings = count()
    monkeypatch.setattr(_timed, "device_clock", lambda device: lambda: 0.1 * next(readings))


METHODS = [{"method": "kd"}, {"method": "dkd"}]


def timed_study(**sections: Any) -> Study:
    given: dict[str, Any] = {
        "task": TASK,
        "objective": {"methods": METHODS},
        "parameters": {"kd.weight": {"values": [0, 1]}, COMPUTE: {"values": [1, 2]}},
        "search": {"method": "grid"},
        "budget": {"match": "wall_clock", "seconds": 30.0, "epochs": 2},
    }
    return make_study(**(given | sections))


def test_a_configuration_has_its_seconds_and_only_terms_that_weigh() -> None:
    study = timed_study()
    assert COMPUTE == REPORTED
    assert study.configurations == 4
    resolved = study.resolve({"kd.weight": 0.0, COMPUTE: 2.0})
    assert resolved.seconds == 60.0
    assert [term.name for term in resolved.terms] == ["dkd"]
    by_epochs = timed_study(
        parameters={"kd.weight": {"values": [0, 1]}}, budget={"epochs": 2}
    ).resolve({"kd.weight": 0.0})
    assert by_epochs.seconds is None
    assert [term.name for term in by_epochs.terms] == ["kd", "dkd"]


def test_studies_of_equal_epochs_that_began_before_go_on() -> None:
    budget = json.loads(_definition(make_study()))["budget"]
    assert "match" not in budget
    assert "seconds" not in budget
    assert json.loads(_definition(timed_study()))["budget"]["seconds"] == 30.0


def test_a_study_of_seconds_survives_being_written_and_read() -> None:
    from ruamel.yaml import YAML

    study = timed_study()
    data = YAML(typ="safe", pure=True).load(study.to_yaml())
    assert Study.model_validate_json(json.dumps(data), strict=True) == study


def test_a_study_is_trained_and_told_of(tmp_path: Path) -> None:
    study = timed_study(storage={"folder": str(tmp_path)}, tracking={"mlflow": False})
    ledger = swept_here(study)
    record = ledger.record()
    assert {trial.state for trial in (*record.trials, *record.controls)} == {"done"}
    assert {len(trial.history) for trial in record.trials} == {2}
    assert record.budget_seconds == 30.0
    for trial in record.trials:
        assert trial.train_seconds == trial.history[-1]["compute_seconds"]
    assert record.controls[0].history[-1]["teacher_seconds"] == 0.0
    assert "Time is measured" in markdown(record)
    assert "Accuracy against compute" in markdown(record)
    assert CohortQueue(ledger).complete


def test_rungs_are_parts_of_the_budget(tmp_path: Path) -> None:
    study = timed_study(
        parameters={"kd.weight": {"values": [0, 1]}},
        rungs={"eta": 2, "first": 1},
        storage={"folder": str(tmp_path)},
        tracking={"mlflow": False},
    )
    record = swept_here(study).record()
    assert sorted(trial.state for trial in record.trials) == ["done", "pruned"]
    [pruned] = [trial for trial in record.trials if trial.state == "pruned"]
    assert pruned.reason == "rung at epoch 1: rank 2 of 2"
