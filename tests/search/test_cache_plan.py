from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sweeps import network, study_in

from kdscale.errors import StudyFileError, UserError
from kdscale.search import Study, check, fill_cache, single_trial, train_single
from kdscale.training import Teaching, store_teacher

IMAGES = 100


def study_with(folder: Path, *overrides: str) -> Study:
    """Returns the tiny study with two views an image, and a teacher of random weights."""
    weights = store_teacher(network(seed=7), study_in(folder).task.teacher, 100, folder)
    few = ("task.data.augmentation.crop_padding=0", f"task.teacher.weights={weights}")
    return study_in(folder, *few, *overrides)


def must_not_teach(*_: object) -> None:
    raise AssertionError("the live teacher must not teach")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_after_filling_nothing_is_computed(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_with(tmp_path)
    told = list(fill_cache(study, processes))
    assert told[-1] == (2 * IMAGES, 2 * IMAGES)
    assert sorted(told) == told
    off = study_with(tmp_path, "task.teacher.cache.enabled=false", "storage.folder=off")
    off = off.model_copy(
        update={"storage": off.storage.model_copy(update={"folder": tmp_path / "off"})}
    )
    wanted = [part.rows for part in train_single(off, single_trial(off, 3))]
    monkeypatch.setattr(Teaching, "live", must_not_teach)
    assert [part.rows for part in train_single(study, single_trial(study, 3))] == wanted
    list(fill_cache(study, 1))  # again: all is there


def test_a_cache_that_is_off_or_too_large_is_not_filled(tmp_path: Path) -> None:
    def fill(*overrides: str) -> Any:
        return next(fill_cache(study_with(tmp_path, *overrides)))

    with pytest.raises(UserError, match=r"to fill, but task\.teacher\.cache\.enabled is false"):
        fill("task.teacher.cache.enabled=false")
    with pytest.raises(UserError, match="the outputs of one epoch do not fit in the quota"):
        fill("task.teacher.cache.quota=30kB")
    with pytest.raises(UserError, match=r"quota must be at least 92343 \(the full cache"):
        fill("task.teacher.cache.quota=50kB")


def test_the_plan_is_arithmetic(tmp_path: Path) -> None:
    plan = check(study_in(tmp_path)).cache
    assert plan is not None
    assert (plan.images, plan.views, plan.entry_bytes) == (IMAGES, 162, 400)
    assert plan.full_bytes == IMAGES * 162 * 404
    assert plan.study_bytes == IMAGES * 2 * 2 * 8192  # two seeds, two epochs, two pages at most
    assert plan.folder == tmp_path / ".cache" / "teachers"
    half = check(study_in(tmp_path, "task.teacher.cache.dtype=fp16")).cache
    assert half is not None
    assert half.entry_bytes == 200
    elsewhere = study_in(tmp_path, "task.teacher.cache.folder=here")
    assert elsewhere.cache_folder == Path("here")


def test_the_cache_is_no_part_of_what_a_study_is_unless_it_rounds(tmp_path: Path) -> None:
    def folders(*overrides: str) -> tuple[Path, Path]:
        study = study_in(tmp_path, *overrides)
        return study.teacher_folder, single_trial(study, 0).folder

    plain = folders()
    assert folders("task.teacher.cache.enabled=false") == plain
    assert folders("task.teacher.cache.quota=1GB", "task.teacher.cache.folder=x") == plain
    rounded = folders("task.teacher.cache.dtype=fp16")
    assert (rounded[0] == plain[0], rounded[1] == plain[1]) == (True, False)


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("1.5MiB", 3 * 2**19), ("7", 7), ("500 kB", 500_000)]
)
def test_a_quota_is_bytes_or_a_size(text: str, size: int, tmp_path: Path) -> None:
    study = study_in(
        tmp_path,
        f"task.teacher.cache.quota='{text}'" if " " in text else f"task.teacher.cache.quota={text}",
    )
    assert study.task.teacher.cache.quota == size


@pytest.mark.parametrize("text", ["20XB", "GB", "-1"])
def test_a_wrong_quota_is_a_rule(text: str, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"task\.teacher\.cache\.quota: must be"):
        study_in(tmp_path, f"task.teacher.cache.quota={text}")
