"""Sweeps with real training: what a study finds does not depend on how its trials are packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdscale.search import Study, open_ledger
from kdscale.search._cohort_job import Place, measure_job, threads
from kdscale.search._queue import CohortQueue
from kdscale.search._sweep import _prepare_teacher
from kdscale.training import Group, content_hash, student_path

from .here import numbers, swept_here
from .studies import make_study

Found = tuple[dict[str, tuple[Any, ...]], dict[str, str]]


def study_with(cohort: int | str, folder: Path) -> Study:
    """Returns a study of 16 trials of one seed and a control; each of two groups has two rungs."""
    return make_study(
        task={
            "data": {"name": "icons100", "train_images": 64},
            "teacher": {
                "model": "resnet8",
                "weights": "package:icons100-resnet8",
                "inference": "folded",
            },
            "student": {"model": "resnet8", "args": {"width": 4}},
            "recipe": {"batch_size": 32},
        },
        parameters={"alpha": {"values": [2, 4, 8, 14]}, "depth": {"values": [3, 5, 7, 9]}},
        search={"method": "grid"},
        rungs={"eta": 2, "first": 1},
        budget={"epochs": 4},
        resources={"cohort": cohort},
        storage={"folder": str(folder)},
    )


def found(cohort: int | str, folder: Path, cache: Path | None = None) -> Found:
    """Returns the numbers of a study trained here, and a hash of each student that it wrote."""
    study = study_with(cohort, folder)
    ledger = swept_here(study, cache)
    students = {
        name: content_hash(torch.load(path, weights_only=True)["state"])
        for name in numbers(ledger)
        if (path := student_path(study.folder / "trials" / name)).exists()
    }
    return numbers(ledger), students


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What is found when no trial ever shares a teacher pass."""
    return found(1, tmp_path_factory.mktemp("alone"))


def test_the_study_prunes_and_ends(alone: Found) -> None:
    told, students = alone
    states = [state for _, state, *_ in told.values()]
    assert (states.count("pruned"), states.count("done")) == (12, 5)
    assert len(students) == 5


@pytest.mark.parametrize("cohort", [2, 5, 16, "auto"])
def test_every_size_of_cohorts_finds_the_same(
    cohort: int | str, alone: Found, tmp_path: Path
) -> None:
    assert found(cohort, tmp_path) == alone


def test_a_cache_changes_nothing_filled_by_one_size_and_read_by_another(
    alone: Found, tmp_path: Path
) -> None:
    assert found(16, tmp_path / "cold", tmp_path / "cache") == alone
    assert found(3, tmp_path / "warm", tmp_path / "cache") == alone


def test_every_size_is_measured_with_a_live_teacher(tmp_path: Path) -> None:
    study = study_with("auto", tmp_path)
    threads(study)
    ledger = open_ledger(study, create=True)
    teacher = _prepare_teacher(study, ledger, lambda progress: None)
    job = CohortQueue(ledger).next()
    assert job is not None
    assert job.measure
    place = Place(study, study.folder.absolute(), teacher, tmp_path / "cache")
    assert [row.size for row in measure_job(job, place, Group())][:2] == [1, 2]
    assert not (tmp_path / "cache").exists()  # no size finds there what another has computed
