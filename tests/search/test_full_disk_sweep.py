"""A sweep through Ray whose disk runs full: it waits, says so, and ends as if nothing had been."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from disks import DISK_BYTES, can_mount, full_disk

from kdscale.files import DISK_FULL
from kdscale.records import TrialRecord
from kdscale.search import sweep

from .here import Listener, numbers, swept_here
from .test_remote import small_study

with tempfile.TemporaryDirectory() as _folder:
    MOUNTS = can_mount(Path(_folder))


class FillsTheDisk(Listener):
    """Fills the study's disk after the first epoch, and makes room when training waits.

    Args:
        folder: Lies on that disk.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._ballast = folder / "ballast"
        self._filled = False
        self.waits: list[str] = []

    def on_change(self, trial: TrialRecord) -> None:
        super().on_change(trial)
        if trial.history and not self._filled:
            self._filled = True
            file = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with suppress(OSError):
                while True:
                    os.write(file, bytes(4096))
            os.close(file)
        if DISK_FULL in trial.reason:
            self.waits.append(trial.reason)
            if len(self.waits) == 3:
                self._ballast.unlink()


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS, reason="needs the right to mount a file system")
@pytest.mark.usefixtures("cluster")
def test_a_sweep_waits_for_room_and_goes_on(tmp_path: Path) -> None:
    wanted = numbers(swept_here(small_study(tmp_path / "alone")))
    with full_disk(tmp_path / "disk", DISK_BYTES - 4096) as disk:
        study = small_study(disk.folder / "studies")
        listener = FillsTheDisk(disk.folder)
        outcome = sweep(study, listener)
        assert outcome.complete
        assert numbers(outcome.ledger) == wanted
        assert {trial.attempt for trial in outcome.ledger.trials} == {1}
    assert len(listener.waits) >= 3
    assert f"{study.folder}/trials/" in listener.waits[0]
