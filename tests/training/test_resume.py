"""An attempt killed at any point and started again ends with the bits of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.training import Cohort, Group, checkpoint_path, student_path, train_cohort
from kdscale.training._student import Lesson, Student

from .tasks import (
    EPOCHS,
    VIT,
    Outcome,
    assert_same,
    cohort_of,
    data,
    files_of,
    follow,
    members,
    recipe_with,
    teacher,
    train,
)

NAMES = ("kd", "dkd", "rsd", "shallow", "wild")
SAVES = 16
"""Of 4 healthy members after each of 3 epochs, and their students."""


@dataclass(frozen=True, repr=False)
class Undisturbed:
    outcomes: dict[str, Outcome]
    files: dict[str, dict[str, Any]]


class Killed(BaseException):
    """As a signal would: nothing but the test catches it."""


def five(folder: Path) -> Cohort:
    """Returns a cohort of five, of which one diverges."""
    recipes = {"wild": recipe_with(lr=1e30), "rsd": recipe_with(lr=0.01)}
    return cohort_of(members(folder, *NAMES, recipes=recipes))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    cohort = five(tmp_path_factory.mktemp("undisturbed"))
    return Undisturbed(train(cohort), {m.name: files_of(m) for m in cohort.members})


@contextmanager
def killed_at_save(number: int) -> Iterator[None]:
    """Kills the attempt in its n-th save, when the new file is written but not yet in place."""
    replaced = os.replace
    left = number

    def broken(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        replaced(source, target)

    with mock.patch("kdscale.training._checkpoint.os.replace", broken):
        yield


def interrupted(cohort: Cohort, save: int) -> dict[str, Outcome]:
    """Returns what an attempt tells that is killed in its n-th save, if it has so many."""
    told: dict[str, Outcome] = {}
    with suppress(Killed), killed_at_save(save):
        follow(train_cohort(cohort, data(), teacher(), Group()), told)
    return told


def assert_resumes(cohort: Cohort, undisturbed: Undisturbed) -> None:
    outcomes, files = undisturbed.outcomes, undisturbed.files
    progress = train_cohort(cohort, data(), teacher(), Group())
    first = next(progress)
    saved = {m.name: files_of(m).get("checkpoint.pt", {"history": []}) for m in cohort.members}
    for report in first:
        assert list(report.rows) == saved[report.name]["history"]
    assert follow([first, *progress]) == outcomes
    for member in cohort.members:
        assert_same(files_of(member), files[member.name])


def test_the_undisturbed_run_has_all_that_a_restart_could_get_wrong(
    undisturbed: Undisturbed,
) -> None:
    outcomes, files = undisturbed.outcomes, undisturbed.files
    assert sorted((o.status, len(o.rows)) for o in outcomes.values()) == [
        ("done", 3),
        ("done", 3),
        ("done", 3),
        ("done", 3),
        ("failed", 0),
    ]
    students = sum("student.pt" in of_member for of_member in files.values())
    assert sum(len(o.rows) for o in outcomes.values()) + students == SAVES


@pytest.mark.parametrize("yields", range(EPOCHS + 1))
def test_an_attempt_ended_between_epochs_resumes(
    yields: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    cohort = five(tmp_path)
    progress = train_cohort(cohort, data(), teacher(), Group())
    told = follow(islice(progress, yields))
    progress.close()  # type: ignore[attr-defined]
    for name, outcome in told.items():
        assert outcome.rows == undisturbed.outcomes[name].rows[: len(outcome.rows)]
    assert_resumes(cohort, undisturbed)


@pytest.mark.parametrize(
    ("save", "told_rows"),
    [(1, 0), (2, 0), (4, 0), (5, 4), (8, 4), (9, 8), (10, 8), (11, 8), (16, 8)],
)
def test_an_attempt_killed_in_a_save_resumes(
    save: int, told_rows: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    cohort = five(tmp_path)
    told = interrupted(cohort, save)
    assert sum(len(outcome.rows) for outcome in told.values()) == told_rows
    for member in cohort.members:
        # What was told is never lost: it was in a checkpoint before.
        saved = files_of(member).get("checkpoint.pt", {"history": []})["history"]
        assert saved[: len(told[member.name].rows)] == told[member.name].rows
    assert_resumes(cohort, undisturbed)


@given(saves=st.lists(st.integers(1, 4), min_size=2, max_size=4))
@settings(max_examples=6, deadline=None, derandomize=True)
def test_an_attempt_killed_again_and_again_resumes(
    undisturbed: Undisturbed, saves: list[int]
) -> None:
    with TemporaryDirectory() as folder:
        cohort = five(Path(folder))
        for save in saves:
            for name, outcome in interrupted(cohort, save).items():
                assert outcome.rows == undisturbed.outcomes[name].rows[: len(outcome.rows)]
        assert_resumes(cohort, undisturbed)


def test_members_at_different_epochs_wait_for_the_last(tmp_path: Path) -> None:
    cohort = cohort_of(members(tmp_path, "kd", "dkd"))
    interrupted(cohort, 4)  # kd's second epoch is saved, dkd's is not
    told = list(train_cohort(cohort, data(), teacher(), Group()))
    rows = [[len(report.rows) for report in reports] for reports in told]
    assert rows == [[2, 1], [0, 1], [1, 1]]


def test_legs_in_other_company_end_with_the_same_bits(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """As the search does it: those that a rung keeps are packed together again."""
    kd, dkd, rsd, shallow, wild = five(tmp_path).members
    legs = [((kd, wild, rsd), 1), ((dkd, shallow), 1), ((rsd, dkd), 2), ((dkd, rsd), EPOCHS)]
    told: dict[str, Outcome] = {}
    for number, (trials, until) in enumerate(legs):
        leg = cohort_of(trials, until=until)
        if number == 2:  # killed in the middle: one member is an epoch ahead of the other
            interrupted(leg, 2)
        told |= train(leg)
        for member in trials:
            outcome, wanted = told[member.name], undisturbed.outcomes[member.name]
            assert outcome.rows == wanted.rows[:until]
            assert outcome.status == (
                "running" if until < EPOCHS and wanted.rows else wanted.status
            )
    for member in (dkd, rsd):
        assert told[member.name] == undisturbed.outcomes[member.name]
        assert_same(files_of(member), undisturbed.files[member.name])
    assert not student_path(kd.folder).exists()


def test_adamw_resumes(tmp_path: Path) -> None:
    recipe = recipe_with(optimizer="adamw", lr=1e-3, clip_norm=1.0)
    whole, cut = (
        cohort_of(members(tmp_path / name, "rsd", recipes={"rsd": recipe}), model=VIT)
        for name in ("whole", "cut")
    )
    expected = train(whole)
    interrupted(cut, 2)
    assert train(cut) == expected
    assert_same(files_of(cut.members[0]), files_of(whole.members[0]))


def test_a_finished_trial_is_not_trained_again(tmp_path: Path) -> None:
    cohort = cohort_of(members(tmp_path, "kd"))
    expected = train(cohort)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.pt"))]
    assert train(cohort) == expected
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.pt"))] == times


def train_until_killed(folder: Path, steps: int, threads: int) -> None:
    """Trains in a process of its own, which SIGKILL ends before its n-th step."""
    torch.set_num_threads(threads)  # sums in float32 depend on it
    step = Student.step
    left = steps

    def last(self: Student, lesson: Lesson) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        step(self, lesson)

    with mock.patch.object(Student, "step", last):
        train(five(folder))


def test_a_process_killed_in_the_middle_of_an_epoch_resumes(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    # 5 members make 15 steps in the first epoch; 2 are left for the second, so this is its middle.
    process = multiprocessing.get_context("spawn").Process(
        target=train_until_killed, args=(tmp_path, 15 + 4, torch.get_num_threads())
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    cohort = five(tmp_path)
    assert [checkpoint_path(m.folder).exists() for m in cohort.members] == [True] * 4 + [False]
    assert not any(student_path(m.folder).exists() for m in cohort.members)
    assert_resumes(cohort, undisturbed)
