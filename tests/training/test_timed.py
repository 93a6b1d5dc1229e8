"""Budgets in seconds, by a clock of the test's own: nothing here asserts real time."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from kdscale.training import Cohort, Group, Progress, Row, train_timed_cohort
from kdscale.training._checkpoint import load_checkpoint
from kdscale.training._clock import Account
from kdscale.training._student import checkpoint_path

from .tasks import TERMS, cohort_of, data, files_of, follow, members, recipe_with, teacher
from .test_resume import Killed, killed_at_save

SECONDS = 24.0
SLICES = 4


class Ticks:
    """A clock that goes on by some time whenever it is read."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self._random = random.Random(seed)

    def __call__(self) -> float:
        self.now += self._random.uniform(0.05, 0.1)
        return self.now


def timed(folder: Path, *names: str, seconds: float = SECONDS, **changes: object) -> Cohort:
    trials = tuple(replace(member, seconds=seconds) for member in members(folder, *names))
    return cohort_of(trials, epochs=SLICES, **changes)


def told(
    cohort: Cohort, clock: Callable[[], float] | None = None, group: Group | None = None
) -> dict[str, list[Row]]:
    clock = clock or Ticks()
    training = train_timed_cohort(cohort, data(), teacher(), group or Group(), clock=clock)
    outcomes = follow(training)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    return {name: outcome.rows for name, outcome in outcomes.items()}


def test_each_member_stops_at_its_own_budget_and_leaves_the_cohort(tmp_path: Path) -> None:
    cohort = timed(tmp_path, "kd", "undistilled")
    short, long = cohort.members
    cohort = replace(cohort, members=(short, replace(long, seconds=2 * SECONDS)))
    rows = told(cohort)
    for name, budget in ((short.name, SECONDS), (long.name, 2 * SECONDS)):
        spent = [row["compute_seconds"] for row in rows[name]]
        goals = [budget * (number + 1) / SLICES for number in range(SLICES)]
        assert spent == pytest.approx(goals, abs=0.2)  # a step takes 0.25 or so
        assert spent[-1] == pytest.approx(budget, rel=0.01)
        last = rows[name][-1]
        parts = ("student_seconds", "teacher_seconds", "data_seconds")
        assert sum(last[part] for part in parts) == pytest.approx(last["compute_seconds"])
        assert min(last["evaluation_seconds"], last["paused_seconds"]) > 0
        assert last["data_epochs"] == last["steps"] / 3
        assert [row["epoch"] for row in rows[name]] == [1, 2, 3, 4]
    assert rows["undistilled"][-1]["teacher_seconds"] == 0 < rows["kd"][-1]["teacher_seconds"]
    assert (tmp_path / "kd" / "student.pt").exists()


def test_schedules_follow_the_seconds(tmp_path: Path) -> None:
    cosine = recipe_with(lr=0.1, warmup_epochs=0)
    cohort = timed(tmp_path, "kd")
    cohort = replace(cohort, members=(replace(cohort.members[0], recipe=cosine),))
    rates = [row["lr"] for row in told(cohort)["kd"]]
    assert rates == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-4)


@pytest.mark.parametrize("kills", [(2,), (1, 3, 1, 2)])
def test_killed_and_resumed_it_goes_on_counting(kills: tuple[int, ...], tmp_path: Path) -> None:
    cohort = timed(tmp_path, "kd", "undistilled")
    before: dict[str, float] = {}
    for attempt, save in enumerate(kills):
        with suppress(Killed), killed_at_save(save):
            clock = Ticks(seed=attempt)
            list(train_timed_cohort(cohort, data(), teacher(), Group(), clock=clock))
        for member in cohort.members:
            if checkpoint_path(member.folder).exists():
                account = Account(**load_checkpoint(checkpoint_path(member.folder))["account"])
                assert account.compute_seconds >= before.get(member.name, 0.0)
                before[member.name] = account.compute_seconds
    assert before
    assert max(before.values()) < SECONDS  # none was done
    for rows in told(cohort, Ticks(seed=9)).values():
        assert rows[-1]["compute_seconds"] == pytest.approx(SECONDS, rel=0.01)
        assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
        spent = [row["compute_seconds"] for row in rows]
        assert spent == sorted(spent)


def test_who_shares_the_cohort_changes_no_price(tmp_path: Path) -> None:
    class Steady:
        """A clock of which each reading takes the same time."""

        now = 0.0

        def __call__(self) -> float:
            self.now += 0.0625  # a sum of these is exact
            return self.now

    alone = told(timed(tmp_path / "alone", "kd"), Steady())["kd"]
    among = told(timed(tmp_path / "among", "views", "kd", "undistilled"), Steady())["kd"]
    parts = ("student_seconds", "teacher_seconds", "steps", "compute_seconds")
    # The data of a second view has readings of its own, which the first one's time holds.
    extra = 2 * 0.0625
    for one, other in zip(alone, among, strict=True):
        assert one["student_seconds"] / one["steps"] == other["student_seconds"] / other["steps"]
        assert one["teacher_seconds"] / one["steps"] == other["teacher_seconds"] / other["steps"]
        gap = other["data_seconds"] / other["steps"] - one["data_seconds"] / one["steps"]
        assert gap <= extra
    assert set(parts) <= set(alone[0])


def test_the_first_step_of_an_attempt_is_charged_as_the_second(tmp_path: Path) -> None:
    class SlowStart:
        """A clock that is slow until the fourth reading: while things are set up."""

        now, readings = 0.0, 0

        def __call__(self) -> float:
            self.readings += 1
            self.now += 100.0 if self.readings < 5 else 0.0625
            return self.now

    [last] = [rows[-1] for rows in told(timed(tmp_path, "kd"), SlowStart()).values()]
    assert last["compute_seconds"] == pytest.approx(SECONDS, rel=0.01)
    assert last["setup_seconds"] > 100.0
    assert last["steps"] > 50


def test_a_slice_shorter_than_a_step_has_a_row_all_the_same(tmp_path: Path) -> None:
    rows = told(timed(tmp_path, "kd", seconds=0.5))["kd"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert len({row["steps"] for row in rows}) < 4


def test_a_leg_ends_at_a_part_of_the_budget_and_another_goes_on(tmp_path: Path) -> None:
    cohort = timed(tmp_path, "kd", "dkd")
    first = follow(
        train_timed_cohort(replace(cohort, until=2), data(), teacher(), Group(), clock=Ticks())
    )
    assert {(o.status, len(o.rows)) for o in first.values()} == {("running", 2)}
    rows = told(cohort)
    assert [row["epoch"] for row in rows["kd"]] == [1, 2, 3, 4]
    assert rows["kd"][-1]["compute_seconds"] == pytest.approx(SECONDS, rel=0.01)


def test_a_member_that_fails_leaves_the_others(tmp_path: Path) -> None:
    cohort = timed(tmp_path, "kd", "wild")
    kd, wild = cohort.members
    wild = replace(wild, terms=TERMS["dkd"], recipe=recipe_with(lr=1e30))
    clock = Ticks()
    found = follow(
        train_timed_cohort(
            replace(cohort, members=(kd, wild)), data(), teacher(), Group(), clock=clock
        )
    )
    assert found["wild"].status == "failed"
    assert found["wild"].reason.startswith("diverged")
    assert found["kd"].status == "done"


def test_a_cohort_by_epochs_keeps_no_account(tmp_path: Path) -> None:
    from kdscale.training import train_cohort

    [member] = members(tmp_path, "kd")
    follow(train_cohort(cohort_of((member,)), data(), teacher(), Group()))
    assert "account" not in files_of(member)["checkpoint.pt"]


def test_progress_tells_the_compute(tmp_path: Path) -> None:
    clock = Ticks()
    training = train_timed_cohort(timed(tmp_path, "kd"), data(), teacher(), Group(), clock=clock)
    reports: list[Progress] = [parts[0] for parts in islice(training, 2)]
    assert reports[1].seconds == reports[1].rows[0]["compute_seconds"]
