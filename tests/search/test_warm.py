from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sweeps import PretendSweep, study_in

from kdscale.analysis import markdown
from kdscale.errors import StudyFileError, UserError
from kdscale.search import Study, designed_configuration, load_folder, open_ledger

from .studies import load_data, study_data

SPACE = {"alpha": {"min": 2, "max": 14}, "depth": {"values": [3, 5]}}


def swept(folder: Path, **sections: Any) -> Study:
    study = study_in(folder, **{"name": "other", "budget": {"trials": 12, "epochs": 2}} | sections)
    PretendSweep()(study)
    return study


def ranked(study: Study) -> list[dict[str, Any]]:
    found = []
    for trials in open_ledger(study, create=False).by_configuration():
        values = [trial.value for trial in trials if trial.value is not None]
        found.append((-sum(values) / len(values), trials[0].configuration, trials[0].parameters))
    return [dict(parameters) for _, _, parameters in sorted(found, key=lambda one: one[:2])]


@pytest.mark.parametrize("method", ["random", "sobol", "lhs", "tpe"])
def test_the_others_best_come_first_and_the_search_follows(tmp_path: Path, method: str) -> None:
    other = swept(tmp_path)
    warm = study_in(
        tmp_path,
        name="mine",
        search={"method": method, "warm_start": str(other.folder)},
        budget={"trials": 10, "epochs": 2},
    )
    PretendSweep()(warm)
    ledger = open_ledger(warm, create=False)
    asked = [dict(trials[0].parameters) for trials in ledger.by_configuration()]
    assert asked[:3] == ranked(other)[:3]
    assert len(asked) == 5
    if method != "tpe":
        cold = study_in(tmp_path, name="cold", search={"method": method})
        assert asked[3:] == [designed_configuration(cold, number) for number in (0, 1)]
    record = ledger.record()
    assert (record.first, record.warm_start) == (3, "other")
    assert "The search began with c000, c001 and c002, the best of other" in markdown(record)


def test_it_goes_on_without_the_other_study_and_elsewhere(tmp_path: Path) -> None:
    other = swept(tmp_path)
    path = str(other.folder)
    search = {"method": "random", "warm_start": path}
    warm = study_in(tmp_path, name="mine", search=search)
    PretendSweep(stop_after=1)(warm)
    first = open_ledger(warm, create=False).study.first
    shutil.rmtree(other.folder)
    assert open_ledger(warm, create=True).study.first == first
    (warm.folder / "study.yaml").write_text(open_ledger(warm, create=False).study.to_yaml())
    shutil.move(warm.folder, tmp_path / "moved" / "mine")
    moved = load_folder(tmp_path / "moved" / "mine", ["budget.trials=8"])
    PretendSweep()(moved)
    ledger = open_ledger(moved, create=False)
    assert ledger.study.first == first
    assert len(ledger.by_configuration()) == 4


def test_a_study_that_has_trained_keeps_what_it_began_with(tmp_path: Path) -> None:
    other = swept(tmp_path)
    warm = study_in(
        tmp_path, name="mine", search={"method": "random", "warm_start": str(other.folder)}
    )
    PretendSweep(stop_after=1)(warm)
    before = open_ledger(warm, create=False).study.first
    shutil.rmtree(other.folder)
    swept(tmp_path, search={"method": "random", "seed": 9})
    assert open_ledger(warm, create=True).study.first == before


def test_only_what_lies_in_the_space_is_taken(tmp_path: Path) -> None:
    other = swept(tmp_path)
    best = ranked(other)
    parameters = {"alpha": {"min": 2, "max": 14}, "depth": {"value": 3}}
    warm = study_in(
        tmp_path,
        name="mine",
        parameters=parameters,
        search={"method": "random", "warm_start": str(other.folder)},
    )
    first = open_ledger(warm, create=True).study.first
    assert list(first) == [{"alpha": one["alpha"]} for one in best][:3]
    away = study_in(
        tmp_path,
        name="away",
        parameters={"alpha": {"min": 20, "max": 30}},
        search={"method": "random", "warm_start": str(other.folder)},
    )
    with pytest.raises(UserError, match=r"space of alpha, but .* has none"):
        open_ledger(away, create=True)


def test_a_folder_without_a_study_is_one_message(tmp_path: Path) -> None:
    search = {"method": "random", "warm_start": str(tmp_path / "nothing")}
    with pytest.raises(UserError, match=r"^search\.warm_start: .*nothing: must be a study"):
        open_ledger(study_in(tmp_path, search=search), create=True)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"method": "grid", "warm_start": "x"}, "must not be given with search.method: grid"),
        (
            {
                "method": "random",
                "first": [{"alpha": 3, "depth": 3}],
                "baseline": {"alpha": 3, "depth": 3},
            },
            "search.first: must not be given with a baseline",
        ),
        (
            {"method": "random", "first": [{"alpha": 3}]},
            "search.first.0: must have a value for each",
        ),
        (
            {"method": "random", "first": [{"alpha": 30, "depth": 3}]},
            "search.first.0.alpha: must be in the space of alpha",
        ),
    ],
)
def test_what_cannot_begin_a_search(search: dict[str, Any], message: str, tmp_path: Path) -> None:
    space = {"alpha": {"min": 2, "max": 14, "q": 1}, "depth": {"values": [3, 5]}}
    with pytest.raises(StudyFileError, match=message):
        load_data(study_data(parameters=space, search=search), tmp_path)
