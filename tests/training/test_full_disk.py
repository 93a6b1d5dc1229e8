"""Training goes on when the teacher cache's disk is full, and uses the cache again later."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from disks import Disk, can_mount, full_disk, limited_files

from kdscale.data import TeacherCache
from kdscale.training import Group, train_cohort

from .tasks import (
    assert_same,
    behind,
    cohort_of,
    data,
    files_of,
    follow,
    members,
    must_not_load,
    teacher,
)

NAMES = ("kd", "rsd")
Making = Callable[[Path], AbstractContextManager[Disk]]


def ways() -> dict[str, Making]:
    """Returns how disks run full here; where nothing can be mounted, in one way."""
    found: dict[str, Making] = {"files are limited": limited_files}
    with tempfile.TemporaryDirectory() as folder:
        if can_mount(Path(folder)):
            for free_bytes in (0, 20_000, 300_000):
                found[f"{free_bytes} bytes are left"] = partial(full_disk, free_bytes=free_bytes)
    return found


WAYS = ways()


@pytest.mark.parametrize("making", WAYS.values(), ids=WAYS)
def test_training_goes_on_and_uses_the_cache_again_when_there_is_room(
    making: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[TeacherCache] = []
    close = TeacherCache.close
    monkeypatch.setattr(TeacherCache, "close", lambda self: opened.append(self) or close(self))

    live = members(tmp_path / "live", *NAMES)
    wanted = follow(train_cohort(cohort_of(live), data(), teacher(), Group()))
    with making(tmp_path / "disk") as disk:
        source = behind(disk.folder / "cache")
        full = members(tmp_path / "full", *NAMES)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            progress = train_cohort(cohort_of(full), data(), source, Group())
            first = list(islice(progress, 3))  # the start and two epochs
            disk.make_room()
            got = follow([*first, *progress])
        texts = [str(w.message) for w in told if "teacher cache" in str(w.message)]
        assert len(texts) == 1
        assert "could not be" in texts[0]
        assert got == wanted
        last_epoch, opened[:] = opened[-1], []
        assert last_epoch.problem == ""

        again = members(tmp_path / "again", *NAMES)
        assert follow(train_cohort(cohort_of(again), data(), source, Group())) == wanted
        warm = behind(disk.folder / "cache", must_not_load)
        warmed = members(tmp_path / "warm", *NAMES)
        assert follow(train_cohort(cohort_of(warmed), data(), warm, Group())) == wanted
        assert [(cache.problem, cache.damaged) for cache in opened] == [("", 0), ("", 0)]
    for trials in (full, again, warmed):
        for member, other in zip(live, trials, strict=True):
            assert_same(files_of(other), files_of(member))
