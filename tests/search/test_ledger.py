from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
import pytest

from kdscale.errors import UserError
from kdscale.records import FinalEvaluation, FinalScores
from kdscale.search import Ledger, Study, open_ledger, sweep_lock
from kdscale.search._plan import CONTROL, PlannedTrial
from kdscale.search._propose import Proposal
from kdscale.training import Progress, Row

from .simulate import MortalStorage
from .studies import make_study

FIRST = PlannedTrial(0, 0)
AGAIN = PlannedTrial(0, 1)
SECOND = PlannedTrial(1, 0)
CONTROLS = PlannedTrial(CONTROL, 0)
POINT = {"alpha": 3.25, "depth": 5}
SPACE: dict[str, Any] = {"alpha": {"min": 2, "max": 14}, "depth": {"min": 3, "max": 9, "q": 2}}


def ledger_study(folder: Path, **sections: Any) -> Study:
    defaults: dict[str, Any] = {
        "parameters": SPACE,
        "seeds": 2,
        "budget": {"trials": 8, "epochs": 4},
        "storage": {"folder": str(folder)},
    }
    return make_study(**(defaults | sections))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return ledger_study(tmp_path)


@pytest.fixture
def ledger(study: Study) -> Ledger:
    return open_ledger(study, create=True)


def rows(*accuracies: float, first: int = 1) -> tuple[Row, ...]:
    return tuple(
        {"epoch": epoch, "val_accuracy": value, "val_loss": 1 / 3, "lr": 0.1}
        for epoch, value in enumerate(accuracies, start=first)
    )


def filled(ledger: Ledger) -> Ledger:
    """Returns the ledger with a trial in each state."""
    for number, planned in enumerate([FIRST, AGAIN, SECOND]):
        ledger.add(planned, Proposal(POINT | {"alpha": 3.0 + number}))
    ledger.add(PlannedTrial(1, 1), Proposal(POINT))
    ledger.add(PlannedTrial(2, 0), Proposal(POINT))
    ledger.add(CONTROLS, Proposal({}))
    ledger.begin("c000-s0", "s0-1", attempt=True)
    ledger.begin("c000-s1", "s0-1", attempt=True)
    ledger.begin("c001-s0", "s0-1", attempt=True)
    ledger.begin("c001-s1", "s0-1", attempt=True)
    ledger.begin("undistilled-s0", "s0-1", attempt=True)
    ledger.progress(Progress("c000-s0", "done", rows(10.0, 20.0, 30.0, 40.1), "", 12.5))
    ledger.progress(Progress("c000-s1", "stopped", rows(5.0, 6.0), "rung at epoch 2", 5.0))
    ledger.progress(Progress("c001-s0", "running", rows(7.0, 8.0), "", 4.0))
    ledger.end("c001-s1", "failed", "failed 3 times: the worker died")
    ledger.progress(Progress("undistilled-s0", "done", rows(1.0, 2.0, 3.0, 4.0), "", 9.0))
    return ledger


def test_a_planned_trial_waits_with_its_parameters(ledger: Ledger) -> None:
    trial = ledger.add(FIRST, Proposal(POINT))
    assert (trial.name, trial.number, trial.state) == ("c000-s0", 0, "waiting")
    assert (trial.configuration, trial.seed, trial.group) == (0, 0, "g0-s0")
    assert trial.parameters == POINT
    assert list(trial.parameters) == ["alpha", "depth"]
    assert type(trial.parameters["depth"]) is int
    assert (trial.attempt, trial.value, trial.history) == (0, None, ())


def test_each_attempt_is_counted(ledger: Ledger) -> None:
    ledger.add(FIRST, Proposal(POINT))
    for attempt in (1, 2):
        ledger.begin("c000-s0", "s0-1", attempt=True)
        assert ledger.trial("c000-s0").attempt == attempt
        assert ledger.trial("c000-s0").state == "running"


def test_progress_adds_epochs_and_the_same_twice_changes_nothing(ledger: Ledger) -> None:
    ledger.add(FIRST, Proposal(POINT))
    ledger.begin("c000-s0", "s0-1", attempt=True)
    first = ledger.progress(Progress("c000-s0", "running", rows(1.0), "", 1.5))
    assert (first.state, first.history, first.train_seconds) == ("running", rows(1.0), 1.5)
    second = ledger.progress(Progress("c000-s0", "running", rows(2.0, first=2), "", 3.0))
    assert second.history == rows(1.0, 2.0)
    again = ledger.progress(Progress("c000-s0", "running", rows(1.0, 2.0), "", 3.0))
    assert again == second == ledger.trial("c000-s0")


def test_an_end_is_told_once_and_stays() -> None:
    ledger = Ledger(make_study(parameters=SPACE), storage := MortalStorage())
    ledger.add(FIRST, Proposal(POINT))
    ledger.begin("c000-s0", "s0-1", attempt=True)
    ended = ledger.progress(Progress("c000-s0", "done", rows(1.0, 2.0), "", 3.0))
    assert (ended.state, ended.value, ended.reason) == ("done", 2.0, "")
    assert ended.student == "trials/c000-s0/student.pt"
    writes = storage.clock.ticks
    assert ledger.progress(Progress("c000-s0", "done", rows(9.0, 9.0), "", 9.0)) == ended
    assert ledger.progress(Progress("c000-s0", "failed", (), "late", 9.0)) == ended
    assert ledger.end("c000-s0", "failed", "later still") == ended
    assert storage.clock.ticks == writes
    assert Ledger(ledger.study, storage).trial("c000-s0") == ended


@pytest.mark.parametrize(
    ("progress", "state", "value"),
    [
        (Progress("c000-s0", "done", rows(1.0, 2.0)), "done", 2.0),
        (Progress("c000-s0", "stopped", rows(1.0), "rung at epoch 1: rank 2 of 2"), "pruned", 1.0),
        (Progress("c000-s0", "failed", rows(1.0), "diverged at epoch 2 (kd)"), "pruned", 1.0),
        (Progress("c000-s0", "failed", (), "diverged at epoch 1 (kd)"), "pruned", None),
        (Progress("c000-s0", "failed", rows(1.0), "error at epoch 2: KeyError"), "failed", None),
        (Progress("c000-s0", "failed", (), "ldrld.depth must be at most 10"), "failed", None),
    ],
)
def test_how_a_trial_can_end(
    ledger: Ledger, study: Study, progress: Progress, state: str, value: float | None
) -> None:
    ledger.add(FIRST, Proposal(POINT))
    ended = ledger.progress(progress)
    assert (ended.state, ended.value, ended.reason) == (state, value, progress.reason)
    assert ended.history == progress.rows
    assert (ended.student is not None) == (state == "done")
    assert open_ledger(study, create=False).trial("c000-s0") == ended


def test_reopening_gives_the_same_records(ledger: Ledger, study: Study) -> None:
    before = filled(ledger)
    after = open_ledger(study, create=False)
    running = before.trial("c001-s0")
    for trial in (*before.trials, *before.controls):
        if trial != running:
            assert after.trial(trial.name) == trial
    assert [trial.name for trial in after.trials] == [trial.name for trial in before.trials]
    states = {trial.name: trial.state for trial in (*after.trials, *after.controls)}
    assert states == {
        "c000-s0": "done",
        "c000-s1": "pruned",
        "c001-s0": "running",
        "c001-s1": "failed",
        "c002-s0": "waiting",
        "undistilled-s0": "done",
    }


def test_a_running_trial_shows_its_curve_to_readers(ledger: Ledger, study: Study) -> None:
    filled(ledger)
    trial = open_ledger(study, create=False).trial("c001-s0")
    assert trial.history == (
        {"epoch": 1, "val_accuracy": 7.0},
        {"epoch": 2, "val_accuracy": 8.0},
    )
    assert (trial.state, trial.value, trial.attempt) == ("running", 8.0, 1)


def test_a_restart_makes_a_running_trials_history_whole_again(study: Study, ledger: Ledger) -> None:
    filled(ledger)
    reopened = open_ledger(study, create=True)
    reopened.begin("c001-s0", "s0-1", attempt=True)
    assert reopened.trial("c001-s0").attempt == 2
    ended = reopened.progress(Progress("c001-s0", "done", rows(7.0, 8.0, 9.0), "", 6.0))
    assert ended.history == rows(7.0, 8.0, 9.0)
    assert open_ledger(study, create=False).trial("c001-s0") == ended


def test_trials_of_a_configuration(ledger: Ledger) -> None:
    filled(ledger)
    assert [[trial.seed for trial in trials] for trials in ledger.by_configuration()] == [
        [0, 1],
        [0, 1],
        [0],
    ]


def test_what_a_sampler_remembers_outlives_the_process(study: Study, ledger: Ledger) -> None:
    memory = {"cma:generation": 3, "cma:optimizer": "ab" * 40}
    ledger.add(FIRST, Proposal(POINT))
    ledger.add(SECOND, Proposal(POINT, memory))
    ledger.add(PlannedTrial(1, 1), Proposal(POINT))
    assert ledger.memories() == [{}, memory]
    assert open_ledger(study, create=False).memories() == [{}, memory]


def test_the_record_is_the_study_and_its_trials(ledger: Ledger, study: Study) -> None:
    record = filled(ledger).record()
    assert (record.name, record.folder) == ("small", study.folder)
    assert (record.metric, record.goal, record.mode) == ("val_accuracy", "maximize", "last")
    assert (record.epochs, record.seeds, record.rungs) == (4, (0, 1), ())
    assert record.parameters == ("alpha", "depth")
    assert record.study_file == study.to_yaml(place=False)
    assert record.trials == tuple(ledger.trials)
    assert record.controls == tuple(ledger.controls)
    assert record.final is None
    assert {"kdscale", "torch", "ray", "optuna"} <= set(record.versions)


def test_controls_count_on_their_own_and_have_no_parameters(ledger: Ledger) -> None:
    filled(ledger)
    [control] = ledger.controls
    assert control.is_control
    assert (control.number, control.parameters, control.value) == (0, {}, 4.0)
    assert control not in ledger.trials


def test_the_final_evaluation_comes_back_as_it_went(ledger: Ledger, study: Study) -> None:
    final = FinalEvaluation(
        configuration=3,
        scores=(
            FinalScores("teacher", {-1: 71.25}, 84),
            FinalScores("distilled student", {0: 69.1, 1: 1 / 3}),
        ),
        reads=2,
        test_images=10000,
    )
    ledger.save_final(final)
    assert open_ledger(study, create=False).record().final == final


def test_a_study_has_one_teacher(ledger: Ledger, study: Study) -> None:
    ledger.save_teacher("a" * 64)
    ledger.save_teacher("a" * 64)
    reopened = open_ledger(study, create=True)
    reopened.save_teacher("a" * 64)
    with pytest.raises(UserError, match=r"must have one teacher.*aaaa.*is bbbb.*--fresh"):
        reopened.save_teacher("b" * 64)


def test_what_optunas_own_users_find_in_the_database(ledger: Ledger, study: Study) -> None:
    filled(ledger)
    url = f"sqlite:///{study.folder / 'study.db'}"
    assert optuna.get_all_study_names(url) == ["small", "small/undistilled"]
    loaded = optuna.load_study(study_name="small", storage=url)
    assert loaded.direction.name == "MAXIMIZE"
    assert loaded.best_value == 40.1
    assert loaded.best_params == {"alpha": 3.0, "depth": 5}
    assert [trial.state.name for trial in loaded.trials] == [
        "COMPLETE",
        "PRUNED",
        "RUNNING",
        "FAIL",
        "RUNNING",
    ]
    assert loaded.trials[0].intermediate_values == {1: 10.0, 2: 20.0, 3: 30.0, 4: 40.1}
    assert loaded.trials[1].intermediate_values == {1: 5.0, 2: 6.0}
    assert loaded.trials[2].intermediate_values == {1: 7.0, 2: 8.0}
    assert loaded.trials[1].user_attrs["reason"] == "rung at epoch 2"
    assert set(loaded.trials[0].distributions) == {"alpha", "depth"}
    controls = optuna.load_study(study_name="small/undistilled", storage=url)
    assert controls.best_value == 4.0


def test_a_minimised_metric_is_minimised_in_optuna_too(tmp_path: Path) -> None:
    study = ledger_study(tmp_path, metric={"name": "val_loss", "goal": "minimize", "mode": "best"})
    ledger = open_ledger(study, create=True)
    ledger.add(FIRST, Proposal(POINT))
    ledger.progress(Progress("c000-s0", "done", rows(1.0)))
    assert ledger.trial("c000-s0").value == 1 / 3
    url = f"sqlite:///{study.folder / 'study.db'}"
    loaded = optuna.load_study(study_name="small", storage=url)
    assert (loaded.direction.name, loaded.best_value) == ("MINIMIZE", 1 / 3)


def test_two_studies_share_a_database_without_mixing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'team.db'}"
    ledgers = [
        open_ledger(
            ledger_study(tmp_path, name=name, storage={"folder": str(tmp_path), "url": url}),
            create=True,
        )
        for name in ("one", "two")
    ]
    filled(ledgers[0])
    ledgers[1].add(FIRST, Proposal(POINT))
    assert [trial.number for trial in ledgers[1].trials] == [0]
    assert not (tmp_path / "two" / "study.db").exists()
    absent = ledger_study(tmp_path, name="three", storage={"folder": str(tmp_path), "url": url})
    with pytest.raises(UserError, match="must hold the study three"):
        open_ledger(absent, create=False)


def test_reading_makes_no_study(study: Study) -> None:
    with pytest.raises(UserError, match="there must be a study to read"):
        open_ledger(study, create=False)
    assert not study.folder.exists()


def test_a_file_may_be_mended_before_anything_is_trained(tmp_path: Path, ledger: Ledger) -> None:
    ledger.add(FIRST, Proposal(POINT))
    stale = ledger.study.folder / "trials" / "c000-s0"
    stale.mkdir(parents=True)
    mended = open_ledger(ledger_study(tmp_path, search={"seed": 1}), create=True)
    assert not mended.trials
    assert not stale.exists()


def test_another_study_file_is_refused_with_every_change(tmp_path: Path, ledger: Ledger) -> None:
    filled(ledger)
    changed = ledger_study(
        tmp_path,
        parameters=SPACE | {"alpha": {"min": 2, "max": 13}},
        budget={"trials": 6, "epochs": 9},
        metric={"name": "val_loss", "goal": "minimize"},
        rungs={"first": 2},
    )
    with pytest.raises(UserError) as error:
        open_ledger(changed, create=True)
    text = str(error.value)
    assert "parameters.alpha.max was 14, now 13" in text
    assert "budget.trials was 8, now 6" in text
    assert "budget.epochs was 4, now 9" in text
    assert "metric.name was val_accuracy, now val_loss" in text
    assert "metric.goal was maximize, now minimize" in text
    assert "rungs was absent, now " in text
    assert "--fresh" in text
    assert text.count(" was ") == 6


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": 3, "budget": {"trials": 9, "epochs": 4}},
        {"search": {"method": "random"}},
        {"search": {"seed": 1}},
        {"undistilled": False},
        {"objective": {"methods": [{"method": "ldrld", "weight": 2.0}]}},
    ],
)
def test_whatever_defines_trials_may_not_change(
    tmp_path: Path, ledger: Ledger, change: dict[str, Any]
) -> None:
    filled(ledger)
    with pytest.raises(UserError, match=f"{next(iter(change))}.* was "):
        open_ledger(ledger_study(tmp_path, **change), create=True)


@pytest.mark.parametrize(
    "change",
    [
        {"budget": {"trials": 10, "epochs": 4}},
        {"budget": {"trials": 8, "epochs": 4, "gpu_hours": 2.0}},
        {"resources": {"workers": 2, "cpus_per_worker": 2, "gpus_per_worker": 0.5}},
        {"tracking": {"mlflow": False}},
    ],
)
def test_a_raised_budget_and_other_machines_continue_the_study(
    tmp_path: Path, ledger: Ledger, change: dict[str, Any]
) -> None:
    filled(ledger)
    again = open_ledger(ledger_study(tmp_path, **change), create=True)
    assert [trial.name for trial in again.trials] == [trial.name for trial in ledger.trials]
    open_ledger(ledger_study(tmp_path, **change), create=True)


def test_a_raised_budget_is_not_lowered_again(tmp_path: Path, ledger: Ledger) -> None:
    filled(ledger)
    open_ledger(ledger_study(tmp_path, budget={"trials": 10, "epochs": 4}), create=True)
    with pytest.raises(UserError, match=r"budget\.trials was 10, now 8"):
        open_ledger(ledger.study, create=True)


def hold_lock(folder: Path, ready: Connection) -> None:
    with sweep_lock(folder):
        ready.send(True)
        signal.pause()


def test_a_second_sweep_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    other = context.Process(target=hold_lock, args=(folder, there))
    other.start()
    try:
        assert here.poll(60)
        for _ in range(2):  # a refusal leaves the lock as it is
            with (
                pytest.raises(UserError, match=f"process {other.pid} is at it"),
                sweep_lock(folder),
            ):
                pass
    finally:
        other.kill()
        other.join()
    with sweep_lock(folder):  # nothing is left to clean up after SIGKILL
        assert (folder / "sweep.lock").read_text() == str(os.getpid())
    with sweep_lock(folder):
        pass
