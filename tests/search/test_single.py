from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from sweeps import network, study_in

from kdscale.errors import UserError
from kdscale.search import Study, single_trial, train_single, train_teacher
from kdscale.search._cohort_lease import Fence, lease_path
from kdscale.training import (
    Progress,
    checkpoint_path,
    load_network,
    store_teacher,
    trained_teacher_path,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of a teacher with random weights."""
    folder = tmp_path_factory.mktemp("teacher")
    return store_teacher(network(seed=7), study_in(folder).task.teacher, 100, folder)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_fixed_parameters_are_not_asked_for(tmp_path: Path) -> None:
    single = single_trial(study_in(tmp_path, "alpha=9", "depth=3"), seed=4)
    assert (single.values, single.defaults, single.seed) == ({}, (), 4)


def test_what_is_searched_takes_its_default(tmp_path: Path) -> None:
    overrides = (
        "objective.methods.0.temperature=3",
        "recipe.lr=tag(log,interval(0.01,1))",
        "recipe.clip_norm=interval(1,5)",
        "recipe.weight_decay=interval(0,0.1)",
        "ce_weight=interval(0,2)",
        "ldrld.weight=interval(0,2)",
    )
    single = single_trial(study_in(tmp_path, *overrides), seed=0)
    assert single.values == {
        "alpha": 10.5,
        "depth": 7,
        "recipe.lr": 0.05,
        "recipe.clip_norm": 1.0,  # the recipe has none: that of the hyperparameter
        "recipe.weight_decay": 5e-4,
        "ce_weight": 1.0,
        "ldrld.weight": 1.0,
    }
    assert single.defaults == tuple(single.values)


def test_the_baseline_comes_before_defaults(tmp_path: Path) -> None:
    study = study_in(tmp_path, "search.baseline={alpha: 3, depth: 5}")
    single = single_trial(study, seed=0)
    assert single.values == {"alpha": 3.0, "depth": 5}
    assert single.defaults == ("alpha", "depth")


def test_a_trial_has_a_folder_of_its_own(tmp_path: Path) -> None:
    def folder(*overrides: str, seed: int = 0) -> Path:
        return single_trial(study_in(tmp_path, *overrides), seed).folder

    first = folder("alpha=9", "depth=3")
    assert first.parent == tmp_path / "tiny/single"
    assert folder("alpha=9.0", "depth=3", "budget.trials=8") == first
    others = {
        folder("alpha=9", "depth=5"),
        folder("alpha=9.5", "depth=3"),
        folder("alpha=9", "depth=3", seed=1),
        folder("alpha=9", "depth=3", "task.recipe.lr=0.1"),
        folder("alpha=9", "depth=3", "ldrld.weight=0.5"),
        folder("alpha=9", "depth=3", "objective.ce_weight=0.5"),
    }
    assert first not in others
    assert len(others) == 6


def test_another_task_or_length_does_not_share_the_folder(tmp_path: Path) -> None:
    """A checkpoint is of its data, its teacher and its schedule: none may go on with another."""

    def folder(*overrides: str) -> Path:
        return single_trial(study_in(tmp_path, "alpha=9", "depth=3", *overrides), 0).folder

    folders = {
        folder(),
        folder("budget.epochs=3"),
        folder("task.data.train_images=200"),
        folder("task.student.args={width: 5}"),
        folder("task.teacher.args={width: 5}"),
    }
    assert len(folders) == 5


def trained(study: Study, *, epochs: int | None = None) -> list[Progress]:
    single = single_trial(study, seed=2)
    return list(islice(train_single(study, single), None if epochs is None else epochs + 1))


def test_training_goes_on_from_its_checkpoint(tmp_path: Path, weights: Path) -> None:
    overrides = ("alpha=9", "depth=3", "budget.epochs=3", f"task.teacher.weights={weights}")
    whole, halved = (study_in(tmp_path / name, *overrides) for name in ("whole", "halved"))
    expected = [row for progress in trained(whole) for row in progress.rows]
    assert [row["epoch"] for row in expected] == [1, 2, 3]

    trained(halved, epochs=1)
    single = single_trial(halved, seed=2)
    assert checkpoint_path(single.folder).exists()
    assert not single.student.exists()
    went_on = trained(halved)
    assert [len(progress.rows) for progress in went_on] == [1, 1, 1]
    assert [row for progress in went_on for row in progress.rows] == expected
    assert (went_on[-1].status, went_on[-1].reason) == ("done", "")

    states = [
        load_network(single_trial(study, 2).student, 100, 32).state_dict()
        for study in (whole, halved)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    ended = trained(halved)
    assert [progress.status for progress in ended] == ["done"]
    assert list(ended[0].rows) == expected


def test_a_refused_pair_is_the_trials_failure(tmp_path: Path, weights: Path) -> None:
    study = study_in(tmp_path, "alpha=9", "depth=99", f"task.teacher.weights={weights}")
    (progress,) = trained(study)
    assert progress.status == "failed"
    assert "classes must be >= depth + 2" in progress.reason


def test_no_teacher_no_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the teacher's weights must exist"):
        trained(study_in(tmp_path, "alpha=9", "depth=3"))


def test_threads_are_those_of_a_worker(tmp_path: Path, weights: Path) -> None:
    overrides = ("alpha=9", "depth=3", "resources.cpus_per_worker=2")
    trained(study_in(tmp_path, *overrides, f"task.teacher.weights={weights}"), epochs=0)
    assert torch.get_num_threads() == 2


def test_a_teacher_in_training_holds_a_lease_that_a_further_sweep_sees(tmp_path: Path) -> None:
    study = study_in(tmp_path, "task.teacher.epochs=1")
    folder = study.folder.absolute()
    Fence(folder, 3)
    training = train_teacher(study, 3)
    next(training)
    lease = lease_path(folder, 3, "teacher")
    assert json.loads(lease.read_text())["trials"] == ["teacher"]
    assert [progress.status for progress in training] == ["done"]
    assert not lease.exists()


def test_the_studys_teacher_is_trained_with_labels_alone(tmp_path: Path) -> None:
    study = study_in(tmp_path, "task.teacher.epochs=1", "seeds=[3,4]")
    told = list(train_teacher(study))
    assert [(progress.name, progress.status) for progress in told] == [
        ("teacher", "running"),
        ("teacher", "done"),
    ]
    (row,) = told[-1].rows
    assert row["train_loss"] > 0
    teacher = load_network(trained_teacher_path(study.teacher_folder), 100, 32)
    assert not teacher.training
    # And now the students find it.
    fixed = study_in(tmp_path, "task.teacher.epochs=1", "seeds=[3,4]", "alpha=9", "depth=3")
    assert trained(fixed, epochs=1)[-1].rows
