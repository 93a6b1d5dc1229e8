"""Random resized crops in training: taught live; stored ones also from the cache, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdscale.data import AugmentationSpec, TaskData
from kdscale.models import Network
from kdscale.training import CachedTeacher, Group, train_cohort

from . import tasks
from .tasks import Outcome, assert_same, cohort_of, files_of, follow, members, teacher
from .test_teach import behind, cache_files, must_not_load

NAMES = ("kd", "views", "rsd")


def data(**crops: Any) -> TaskData:
    augmentation = AugmentationSpec.model_validate({"random_resized_crop": crops})
    return replace(tasks.data(), augmentation=augmentation)


def train(folder: Path, source: Network | CachedTeacher, **crops: Any) -> dict[str, Outcome]:
    cohort = cohort_of(members(folder, *NAMES))
    return follow(train_cohort(cohort, data(**crops), source, Group()))


def assert_same_files(folder: Path, other: Path) -> None:
    for member, known in zip(members(folder, *NAMES), members(other, *NAMES), strict=True):
        assert_same(files_of(member), files_of(known))


def test_new_crops_are_taught_live(tmp_path: Path) -> None:
    live = train(tmp_path / "live", teacher())
    assert train(tmp_path / "behind", behind(tmp_path / "cache")) == live
    assert_same_files(tmp_path / "behind", tmp_path / "live")
    assert not cache_files(tmp_path / "cache")
    assert {outcome.status for outcome in live.values()} == {"done"}


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_stored_crops_are_cached_and_serve_every_seed(tmp_path: Path) -> None:
    crops = {"stored_crops": 2}
    live = train(tmp_path / "live", teacher(), **crops)
    assert train(tmp_path / "cold", behind(tmp_path / "cache"), **crops) == live
    assert cache_files(tmp_path / "cache")
    assert train(tmp_path / "warm", behind(tmp_path / "cache"), **crops) == live
    for kind in ("cold", "warm"):
        assert_same_files(tmp_path / kind, tmp_path / "live")
    # All crops of all images: 100 images, 2 crops, other seeds until nothing is computed.
    for seed in range(6):
        cohort = replace(cohort_of(members(tmp_path / f"{seed}", "kd")), seed=seed)
        follow(train_cohort(cohort, data(**crops), behind(tmp_path / "cache"), Group()))
    unloaded = behind(tmp_path / "cache", must_not_load)
    cohort = replace(cohort_of(members(tmp_path / "last", "kd")), seed=77)
    assert follow(train_cohort(cohort, data(**crops), unloaded, Group()))["kd"].status == "done"
    assert train(tmp_path / "other", teacher(), stored_crops=3) != live
