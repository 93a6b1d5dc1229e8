"""Training waits at an epoch's end while the disk is full, loses nothing, and goes on by itself."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from disks import Disk, can_mount, full_disk

from kdscale.files import DISK_FULL
from kdscale.training import Cohort, Group, Progress, checkpoint_path, train_cohort

from .tasks import Outcome, assert_same, cohort_of, data, files_of, follow, members, teacher, train

Making = Callable[[Path], AbstractContextManager[Disk]]
FREE_BYTES = 250_000
"""Room for a checkpoint or two of those three, and for no more."""


@contextmanager
def limited_files(folder: Path) -> Iterator[Disk]:
    """Gives a folder, and this process no file as large as a checkpoint: needs nobody's leave."""
    folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield Disk(folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def ways() -> dict[str, Making]:
    """Returns how disks run full here; where nothing can be mounted, in one way."""
    found: dict[str, Making] = {"files are limited": limited_files}
    with tempfile.TemporaryDirectory() as folder:
        if can_mount(Path(folder)):
            found["the disk is small"] = partial(full_disk, free_bytes=FREE_BYTES)
    return found


WAYS = ways()


def three(folder: Path) -> Cohort:
    return cohort_of(members(folder, "kd", "dkd", "undistilled"), epochs=2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, dict[str, Outcome]]:
    cohort = three(tmp_path_factory.mktemp("undisturbed"))
    return cohort, train(cohort)


@pytest.mark.parametrize("making", WAYS.values(), ids=WAYS)
def test_training_waits_for_room_and_goes_on(
    making: Making, undisturbed: tuple[Cohort, dict[str, Outcome]], tmp_path: Path
) -> None:
    waits: list[list[Progress]] = []
    with making(tmp_path / "disk") as disk:
        cohort = three(disk.folder / "trials")
        told: list[list[Progress]] = []
        for parts in train_cohort(cohort, data(), teacher(), Group()):
            told.append(parts)
            if DISK_FULL in parts[0].reason:
                waits.append(parts)
                whole = [checkpoint_path(m.folder) for m in cohort.members]
                for path in filter(Path.exists, whole):
                    files_of(cohort.members[whole.index(path)])  # none is half a file
                assert not list(disk.folder.rglob(".checkpoint.pt*"))
                if len(waits) == 2:
                    disk.make_room()
        outcomes = follow(told)
        files = [files_of(member) for member in cohort.members]
    assert outcomes == undisturbed[1]
    for member, found in zip(undisturbed[0].members, files, strict=True):
        assert_same(found, files_of(member))
    assert len(waits) >= 2
    for part in (part for parts in waits for part in parts):
        assert part.status == "running"
        assert part.rows == ()
        assert "are needed" in part.reason
        assert "are free; training waits, and goes on when there is room" in part.reason


def wait_on_a_full_disk(folder: Path, told: Connection) -> None:
    """Trains in a process of its own, and says when it waits."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    for parts in train_cohort(three(folder), data(), teacher(), Group()):
        if DISK_FULL in parts[0].reason:
            told.send("waits")


@pytest.mark.slow
@pytest.mark.skipif(len(WAYS) == 1, reason="needs the right to mount a file system")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_wait(number: int, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    with full_disk(tmp_path / "disk", FREE_BYTES) as disk:
        process = context.Process(target=wait_on_a_full_disk, args=(disk.folder, there))
        process.start()
        there.close()
        assert here.recv() == "waits"
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join()  # the test's time limit ends a wait in vain
        assert process.exitcode != 0
