"""A sweep through Ray whose disk runs full: it waits, says so, and ends as if nothing had been."""

from __future__ import annotations

import os
import tempfile
import threading
import warnings
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


_SECONDS_FULL = 8.0


class FillsTheDisk(Listener):
    """Fills the study's disk after the first epoch for some seconds.

    Args:
        folder: Lies on that disk.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._ballast = folder / "ballast"
        self._filled = False

    def on_change(self, trial: TrialRecord) -> None:
        super().on_change(trial)
        if trial.history and not self._filled:
            self._filled = True
            file = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with suppress(OSError):
                while True:
                    os.write(file, bytes(4096))
            os.close(file)
            threading.Timer(_SECONDS_FULL, self._ballast.unlink).start()


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS, reason="needs the right to mount a file system")
@pytest.mark.usefixtures("cluster")
def test_a_sweep_waits_for_room_and_goes_on(tmp_path: Path) -> None:
    wanted = numbers(swept_here(small_study(tmp_path / "alone")))
    with full_disk(tmp_path / "disk", DISK_BYTES - 4096) as disk:
        study = small_study(disk.folder / "studies")
        listener = FillsTheDisk(disk.folder)
        # Who waits first is a matter of chance: the driver warns, a worker tells its driver.
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            outcome = sweep(study, listener)
        assert outcome.complete
        assert numbers(outcome.ledger) == wanted
        assert {trial.attempt for trial in outcome.ledger.trials} == {1}
    told = [trial.reason for trial in listener.changes] + [str(one.message) for one in warned]
    assert any(DISK_FULL in text or "database is full" in text for text in told)
