"""Measuring the cost of cohorts leaves no trace of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdscale.errors import UserError
from kdscale.training import Group, measure_cohorts
from kdscale.training import _measure as measure

from .tasks import cohort_of, data, members, recipe_with, teacher, train

NAMES = ("kd", "dkd", "shallow", "deep", "undistilled")


def test_sizes_double_up_to_all_members_and_no_file_is_written(tmp_path: Path) -> None:
    cohort = cohort_of(members(tmp_path, *NAMES))
    found = list(measure_cohorts(cohort, data(), teacher(), Group()))
    assert [row.size for row in found] == [1, 2, 4, 5]
    assert all(row.step_seconds > 0 and row.peak_bytes > 0 for row in found)
    assert [row.peak_bytes for row in found] == sorted(row.peak_bytes for row in found)
    assert list(tmp_path.iterdir()) == []


def test_trials_that_have_begun_are_not_touched(tmp_path: Path) -> None:
    cohort = cohort_of(members(tmp_path, "kd", "dkd"), until=1)
    train(cohort)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert len(list(measure_cohorts(cohort, data(), teacher(), Group()))) == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_it_ends_before_it_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_CAP_SECONDS", 0.0)
    cohort = cohort_of(members(tmp_path, *NAMES))
    assert [row.size for row in measure_cohorts(cohort, data(), teacher(), Group())] == [1]


def test_what_cannot_be_trained_is_not_measured(tmp_path: Path) -> None:
    recipes = {"kd": recipe_with(sync_batchnorm=True)}
    cohort = cohort_of(members(tmp_path, "kd", recipes=recipes))
    assert list(measure_cohorts(cohort, data(), teacher(), Group())) == []
    recipes = {"kd": recipe_with(batch_size=101)}
    cohort = cohort_of(members(tmp_path, "kd", recipes=recipes))
    with pytest.raises(UserError, match=r"training images \(100\), but got 101"):
        list(measure_cohorts(cohort, data(), teacher(), Group()))
