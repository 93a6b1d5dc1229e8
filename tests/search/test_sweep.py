"""Sweeps through Ray, with real training of tiny networks."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from data.files import write_cifar

from kdscale.errors import UserError
from kdscale.records import TrialRecord
from kdscale.search import Study, sweep
from kdscale.search._cohort_size import chosen_size
from kdscale.training import load_network, student_path

from .here import Listener, numbers, swept_here
from .studies import make_study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]

TASK: dict[str, Any] = {
    "data": {"name": "icons100", "train_images": 300},
    "teacher": {"model": "resnet8", "args": {"width": 4}, "epochs": 1, "inference": "folded"},
    "student": {"model": "resnet8", "args": {"width": 4}},
    "recipe": {"lr": 0.1, "batch_size": 50},
}
VIT_ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def tiny_study(folder: Path, **sections: Any) -> Study:
    defaults: dict[str, Any] = {
        "name": "tiny",
        "task": TASK,
        "search": {"method": "random"},
        "storage": {"folder": str(folder)},
    }
    return make_study(**(defaults | sections))


def files_of(study: Study) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in study.folder.glob("t*/**/*.pt")}


def test_a_sweep_trains_what_is_planned_and_the_next_one_nothing(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "seeds": 2,
        "rungs": {"eta": 2, "first": 1},
        "budget": {"trials": 8, "epochs": 3},
        "resources": {"cohort": 4},
    }
    study = tiny_study(tmp_path, **sections)
    listener = Listener()
    outcome = sweep(study, listener)
    assert (outcome.trained, outcome.complete, outcome.stopped) == (True, True, "")

    ledger = outcome.ledger
    assert Counter(trial.state for trial in ledger.trials) == {"done": 2, "pruned": 6}
    assert Counter(len(trial.history) for trial in ledger.trials) == {1: 4, 2: 2, 3: 2}
    assert [control.state for control in ledger.controls] == ["done", "done"]
    assert {trial.attempt for trial in (*ledger.trials, *ledger.controls)} == {1}
    for trial in (*ledger.trials, *ledger.controls):
        assert trial.train_seconds > 0
        assert (trial.student is not None) == (trial.state == "done")
        if trial.student is not None:
            assert load_network(study.folder / trial.student, 100, 32).shapes.classes == 100
    assert [(part.status, len(part.rows)) for part in listener.teacher] == [
        ("running", 0),
        ("done", 1),
    ]
    assert listener.lanes == [2]
    ends = Counter(c.name for c in listener.changes if c.state in ("done", "pruned", "failed"))
    assert set(ends.values()) == {1}
    assert len(ends) == 10
    assert not (study.folder / "ray").exists()

    before, again = files_of(study), Listener()
    second = sweep(study, again)
    assert (second.trained, second.complete) == (False, True)
    assert (again.changes, again.teacher, files_of(study)) == ([], [], before)
    assert numbers(second.ledger) == numbers(ledger)

    # Two lanes of Ray, or one after the other in this process: the same numbers to the last bit.
    assert numbers(swept_here(tiny_study(tmp_path / "here", **sections))) == numbers(ledger)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_cohort_costs_is_measured_where_it_trains(workers: int, tmp_path: Path) -> None:
    study = tiny_study(
        tmp_path,
        budget={"trials": 15, "epochs": 1},
        resources={"cohort": "auto", "workers": workers},
    )
    listener = Listener()
    outcome = sweep(study, listener)
    assert outcome.complete
    measured = listener.sizes[-1]
    table = measured.table
    assert table  # a slow machine ends before it has seen all, a very slow one after the first
    assert [row.size for row in table] == [1, 2, 4, 8, 16][: len(table)]
    assert all(row.step_seconds > 0 for row in table)
    assert measured == chosen_size(table, 16, measured.memory_bytes, measured.resources)
    assert outcome.ledger.cohort_size() == measured
    assert {len(trial.attempts) for trial in outcome.ledger.trials} == {1}


def test_a_race_of_seeds_ends_and_the_next_sweep_has_nothing_to_do(tmp_path: Path) -> None:
    recipe = {"batch_size": 50}
    teacher = TASK["teacher"] | {"recipe": {"lr": 0.1, **recipe}}
    study = tiny_study(
        tmp_path,
        task=TASK | {"teacher": teacher, "recipe": recipe},
        search={"method": "grid"},
        parameters={"recipe.lr": {"values": [0.1, 0.05, 0.00001, 0.000001]}},
        metric={"name": "train_loss", "goal": "minimize"},
        seeds={"n": 3, "policy": "race"},
        budget={"epochs": 1},
    )
    outcome = sweep(study, Listener())
    assert (outcome.trained, outcome.complete) == (True, True)
    trials = outcome.ledger.trials
    hopeless = [trial for trial in trials if trial.parameters["recipe.lr"] < 0.001]
    assert [trial.state for trial in hopeless] == 2 * ["done", "done", "pruned"]
    assert [trial.is_raced_out for trial in hopeless] == 2 * [False, False, True]
    assert {trial.attempt for trial in trials if not trial.is_raced_out} == {1}
    assert [control.state for control in outcome.ledger.controls] == 3 * ["done"]

    before, again = files_of(study), Listener()
    second = sweep(study, again)
    assert (second.trained, second.complete) == (False, True)
    assert (again.changes, files_of(study)) == ([], before)


def test_a_search_begins_with_the_best_of_another_study(tmp_path: Path) -> None:
    small: dict[str, Any] = {"budget": {"trials": 4, "epochs": 1}, "undistilled": False}
    other = sweep(tiny_study(tmp_path, name="other", **small), Listener()).ledger
    search = {"method": "sobol", "warm_start": str(tmp_path / "other")}
    warm = sweep(tiny_study(tmp_path, name="warm", search=search, **small), Listener())
    assert (warm.trained, warm.complete) == (True, True)
    ranked = sorted(other.trials, key=lambda trial: -(trial.value or 0))
    first = warm.ledger.trials[:3]
    assert [trial.parameters for trial in first] == [trial.parameters for trial in ranked[:3]]
    assert [trial.value for trial in first] == [trial.value for trial in ranked[:3]]


def test_several_workers_train_what_one_does(tmp_path: Path) -> None:
    """A student without BatchNorm, under a method that looks across the batch.

    Workers add up gradients in another order, so float32 differs in its last digits, and after
    12 steps in losses by less than 1e-3; the accuracy may differ by 3 of 1225 images.
    """
    task = TASK | {
        "student": {"model": "vit_tiny_patch16_224", "args": VIT_ARGS},
        "recipe": {"optimizer": "adamw", "lr": 0.002, "batch_size": 50},
    }
    sections: dict[str, Any] = {
        "task": task,
        "objective": {"methods": [{"method": "ldrld"}, {"method": "rsd"}]},
        "parameters": {"alpha": {"values": [0, 9]}},
        "search": {"method": "grid"},
        "rungs": {"eta": 2, "first": 1},
        "budget": {"epochs": 2},
        "undistilled": False,
    }
    study = tiny_study(tmp_path, **sections, resources={"workers": 2})
    listener = Listener()
    outcome = sweep(study, listener)
    assert outcome.complete
    assert listener.lanes == [1]
    alone = swept_here(tiny_study(tmp_path / "here", **sections))
    assert Counter(trial.state for trial in alone.trials) == {"done": 1, "pruned": 1}
    for one, several in zip(alone.trials, outcome.ledger.trials, strict=True):
        assert (several.state, several.reason) == (one.state, one.reason)
        for row, wanted in zip(several.history, one.history, strict=True):
            assert row["val_accuracy"] == pytest.approx(wanted["val_accuracy"], abs=0.25)
            assert {name: value for name, value in row.items() if "accuracy" not in name} == (
                pytest.approx(
                    {name: value for name, value in wanted.items() if "accuracy" not in name},
                    rel=1e-3,
                )
            )


class Killer(Listener):
    """Notes which processes train each trial, and may kill one of them."""

    def __init__(self, victim: str = "") -> None:
        super().__init__()
        self.workers: dict[str, set[int]] = {}
        self.victim = victim

    def on_change(self, trial: TrialRecord) -> None:
        super().on_change(trial)
        if not (trial.history or trial.has_ended):
            return
        workers = train_workers()
        self.workers.setdefault(trial.name, set()).update(workers)
        if trial.name == self.victim:
            self.victim = ""
            os.kill(max(workers), signal.SIGKILL)


def train_workers() -> set[int]:
    """Returns the processes of Ray Train's workers in this session, Ray's own name for them."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(ValueError, OSError):
            number, mine = int(entry.name), os.getsid(int(entry.name)) == os.getsid(0)
            if mine and (entry / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
                found.add(number)
    return found


def test_workers_stay_from_cohort_to_cohort_and_are_replaced_when_one_dies(tmp_path: Path) -> None:
    """Configuration 0 asks for more classes than there are; a worker is killed in configuration 2.

    Killed or not, the numbers are the same to the last bit.
    """
    write_cifar(tmp_path / "cifar-10-batches-py", classes=10, per_file=40)
    sections: dict[str, Any] = {
        "task": TASK | {"data": {"name": "cifar10", "root": str(tmp_path)}},
        "parameters": {"depth": {"values": [12, 3, 4, 5]}},
        "search": {"method": "grid"},
        "budget": {"epochs": 10},  # so many that it dies before the trial ends
        "undistilled": False,
        "resources": {"workers": 2, "cohort": 1},
    }
    calm, killer = Killer(), Killer("c002-s0")
    undisturbed = sweep(tiny_study(tmp_path / "calm", **sections), calm).ledger
    assert [trial.state for trial in undisturbed.trials] == ["failed", "done", "done", "done"]
    assert len(set.union(*calm.workers.values())) == 2

    outcome = sweep(tiny_study(tmp_path / "killed", **sections), killer)
    assert (outcome.complete, killer.lanes) == (True, [1])
    attempts = {trial.name: trial.attempt for trial in outcome.ledger.trials}
    assert attempts == {"c000-s0": 1, "c001-s0": 1, "c002-s0": 2, "c003-s0": 1}
    first, last = killer.workers["c001-s0"], killer.workers["c002-s0"]
    assert killer.workers["c000-s0"] == first
    assert len(last - first) == 2
    assert numbers(outcome.ledger) == numbers(undisturbed)


def test_a_sweep_survives_its_trials_and_never_needs_test_files(tmp_path: Path) -> None:
    """CIFAR-10 as its authors pack it, but without the file of test images.

    Configuration 1 asks for more classes than there are; trial c000-s1 has a file where its folder
    should be, so its cohort crashes in every attempt.
    """
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, classes=10, per_file=40)
    (folder / "test_batch").unlink()
    task = TASK | {"data": {"name": "cifar10", "root": str(tmp_path)}}
    study = tiny_study(
        tmp_path,
        task=task,
        parameters={"depth": {"values": [3, 12]}},
        search={"method": "grid"},
        seeds=2,
        budget={"epochs": 2},
    )
    student_path(study.folder / "trials" / "c000-s1").parent.parent.mkdir(parents=True)
    (study.folder / "trials" / "c000-s1").write_text("no folder")

    outcome = sweep(study, Listener())
    assert (outcome.complete, outcome.stopped) == (True, "")
    ledger = outcome.ledger
    assert {trial.name: trial.state for trial in (*ledger.trials, *ledger.controls)} == {
        "c000-s0": "done",
        "c001-s0": "failed",
        "c000-s1": "failed",
        "c001-s1": "failed",
        "undistilled-s0": "done",
        "undistilled-s1": "done",
    }
    crashed = ledger.trial("c000-s1")
    assert crashed.reason.startswith("failed 3 times: ")
    assert "c000-s1" in crashed.reason
    assert crashed.attempt == 3
    for name in ("c001-s0", "c001-s1"):
        assert "depth" in ledger.trial(name).reason
        assert ledger.trial(name).attempt == 1
    assert sweep(study, Listener()).trained is False


def test_what_no_trial_can_use_is_refused_before_any_starts(tmp_path: Path) -> None:
    study = tiny_study(tmp_path, resources={"cpus_per_worker": 3})
    with pytest.raises(
        UserError, match=r"room for 1 worker\(s\) of 3 CPU each, but its nodes have 2"
    ):
        sweep(study, Listener())
    recipe = TASK["recipe"] | {"batch_size": 301}
    teacher = {"model": "resnet8", "weights": "package:icons100-resnet8"}
    study = tiny_study(tmp_path, name="other", task=TASK | {"recipe": recipe, "teacher": teacher})
    with pytest.raises(UserError, match=r"batch_size must be at most .*\(300\), but got 301"):
        sweep(study, Listener())
    assert not list(study.folder.glob("trials/*/*"))
