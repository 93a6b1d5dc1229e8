"""Sweeps through Ray that share one teacher cache: filled, damaged, on a full disk, two at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from disks import Disk, can_mount, full_disk

from kdscale.data import TeacherCache
from kdscale.search import Ledger, Study, open_ledger, sweep

from .here import Listener, numbers, swept_here
from .studies import make_study
from .test_kill import driver

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]

IMAGES = 200
VIEWS = 162
EPOCHS = 2
NOISE = b"\xa5" * 4096


def tiny_study(folder: Path, cache: Path, **sections: Any) -> Study:
    """Returns a study of two trials, one a seed: two lanes train them at once."""
    task = {
        "data": {"name": "icons100", "train_images": IMAGES},
        "teacher": {
            "model": "resnet8",
            "weights": "package:icons100-resnet8",
            "inference": "folded",
            "cache": {"folder": str(cache)},
        },
        "student": {"model": "resnet8", "args": {"width": 4}},
        "recipe": {"lr": 0.1, "batch_size": 50},
    }
    defaults: dict[str, Any] = {
        "name": "tiny",
        "task": task,
        "objective": {"methods": [{"method": "ldrld"}, {"method": "rsd"}]},
        "parameters": {"alpha": {"values": [9]}},
        "search": {"method": "grid"},
        "seeds": 2,
        "budget": {"epochs": EPOCHS},
        "undistilled": False,
        "storage": {"folder": str(folder)},
    }
    return make_study(**(defaults | sections))


class WithoutTeacher(Listener):
    """Spoils the teacher's file before any worker can load it."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.folder = study.folder

    def on_start(self, ledger: Ledger, cohorts_at_once: int) -> None:
        super().on_start(ledger, cohorts_at_once)
        [file] = self.folder.glob("teachers/*.pt")
        file.write_bytes(b"no teacher")


def swept(study: Study, listener: Listener | None = None) -> dict[str, tuple[Any, ...]]:
    """Returns a sweep's numbers; all of its trials have trained to the end."""
    outcome = sweep(study, listener or Listener())
    assert outcome.complete
    assert {trial.state for trial in outcome.ledger.trials} == {"done"}
    return numbers(outcome.ledger)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    """The numbers of a sweep in this process, under the live teacher."""
    folder = tmp_path_factory.mktemp("live")
    return numbers(swept_here(tiny_study(folder, folder / "unused")))


def entries(cache: Path) -> tuple[int, int]:
    """Returns how many entries of the one key are there, and how many are damaged."""
    [header] = cache.glob("*/header")
    key = header.parent.name
    made = TeacherCache(cache, key, views=VIEWS, dtype="fp32", quota_bytes=10**9)
    pairs = torch.arange(IMAGES * VIEWS)
    found, _ = made.look_up(pairs // VIEWS, pairs % VIEWS)
    made.close()
    return int(found.sum()), made.damaged


def test_a_sweep_on_a_full_disk_then_with_room_then_without_teacher(
    live: dict[str, tuple[Any, ...]], tmp_path: Path
) -> None:
    cache = tmp_path / "disk" / "cache"
    with ExitStack() as stack:
        if can_mount(tmp_path):
            disk = stack.enter_context(full_disk(cache.parent, free_bytes=100_000))
        else:
            cache.parent.write_text("no folder, so that nothing can be written below it")
            disk = Disk(cache.parent, cache.parent.unlink)
        listener = Listener()
        assert swept(tiny_study(tmp_path / "full", cache), listener) == live
        assert listener.lanes == [2]
        disk.make_room()
        assert swept(tiny_study(tmp_path / "cold", cache)) == live
        there, damaged = entries(cache)
        assert EPOCHS * IMAGES < there <= 2 * EPOCHS * IMAGES
        assert damaged == 0
        warm = tiny_study(tmp_path / "warm", cache)
        assert swept(warm, WithoutTeacher(warm)) == live


def test_several_workers_with_a_filled_cache_load_no_teacher(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"seeds": 1, "resources": {"workers": 2}}
    cache = tmp_path / "cache"
    first = swept(tiny_study(tmp_path / "cold", cache, **sections))
    warm = tiny_study(tmp_path / "warm", cache, **sections)
    assert swept(warm, WithoutTeacher(warm)) == first


def flip(block: Path) -> None:
    """Overwrites the used part of a block here and there."""
    content = bytearray(block.read_bytes())
    used = len(content.rstrip(b"\0"))
    for start in range(0, used, used // 8):
        content[start : start + len(NOISE)] = NOISE
    block.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "damaged": flip,
    "truncated": lambda block: os.truncate(block, len(block.read_bytes().rstrip(b"\0")) // 2),
    "evicted": lambda block: block.unlink(),
}


def test_a_damaged_a_truncated_and_an_evicted_block_change_nothing(
    live: dict[str, tuple[Any, ...]], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert numbers(swept_here(tiny_study(tmp_path / "cold", cache), cache)) == live
    there, damaged = entries(cache)
    assert damaged == 0
    for name, damage in DAMAGES.items():
        [block] = cache.glob("*/*.block")
        damage(block)
        assert entries(cache)[0] < there
        assert numbers(swept_here(tiny_study(tmp_path / name, cache), cache)) == live
        assert entries(cache) == (there, 0)


def test_two_sweeps_at_once_share_a_cache(live: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    """Each with a Ray of its own, as two people on one machine have."""
    cache = tmp_path / "cache"
    studies = [tiny_study(tmp_path / name, cache) for name in ("one", "two")]
    for study in studies:
        study.storage.folder.mkdir()
    with ExitStack() as stack:
        drivers = [stack.enter_context(driver(s, s.storage.folder)) for s in studies]
        told = [process.communicate(timeout=240)[0].splitlines() for process in drivers]
    for study, lines in zip(studies, told, strict=True):
        assert lines[-1] == "complete", (study.storage.folder / "errors.txt").read_text()
        assert numbers(open_ledger(study, create=False)) == live
    there, damaged = entries(cache)
    assert EPOCHS * IMAGES < there <= 2 * EPOCHS * IMAGES
    assert damaged == 0
