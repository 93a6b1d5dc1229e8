"""Who may train a trial: one worker at a time, whatever became of the driver that asked it to.

While a worker trains a cohort it keeps a small file in the study folder that says so, and writes
it anew every two seconds. Beside these files lies the fence: the number of the sweep that owns the
study, and the cohorts that it has given up. A worker behind the fence ends its own process: before
it starts, within two seconds while it trains, and always before it would write a checkpoint. So
does one that cannot renew its file. A driver hands a trial out again only when the file of whoever
had it before is gone, its process is, or nobody has renewed it for long enough.

Files are written in place, since network file systems notice that soonest.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from kdscale.search._process import Process, this_process

LEASES = "leases"
_FENCE = "fence"
_BEAT_SECONDS = 2.0
_OWN_STALE_SECONDS = 20.0
"""After so long without renewal a worker stops itself, before others take it for dead."""

_STALE_SECONDS = 30.0
_POLL_SECONDS = 0.2
_QUIET_SECONDS = 1.0
_SUPERSEDED = 75
"""What a worker's process ends with: sysexits' "try again"."""


class CohortLease:
    """A worker's side: the right to train a cohort, for as long as it lasts."""

    def __init__(
        self,
        folder: Path,
        fence: int,
        cohort: str,
        trials: Collection[str],
        leave: Callable[[], None] = lambda: os._exit(_SUPERSEDED),
    ) -> None:
        """Checks the fence, and says who trains what.

        Args:
            folder: The study folder.
            fence: The number of the sweep that asked for it.
            cohort: The cohort.
            trials: Its trials.
            leave: How to end when the right is lost.
        """
        self._fence_file = folder / LEASES / _FENCE
        self._fence, self._cohort = fence, cohort
        self._path = lease_path(folder, fence, cohort)
        self._about = {
            "process": asdict(this_process()),
            "fence": fence,
            "cohort": cohort,
            "trials": sorted(trials),
        }
        self._leave = leave
        self._beat = 0
        self._renewed = time.monotonic()
        self._ended = threading.Event()
        self.check()
        with suppress(OSError):  # a node that does not share the study folder has one of its own
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._renew()
        self._thread = threading.Thread(target=self._renew_always, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Ends this process if it may train no more."""
        late = time.monotonic() - self._renewed > _OWN_STALE_SECONDS
        if late or not may_train(self._fence_file, self._fence, self._cohort):
            self._leave()

    def close(self) -> None:
        """Gives the right back."""
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            self._path.unlink()

    def _renew_always(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            self._renew()
            self.check()

    def _renew(self) -> None:
        self._beat += 1
        # Of one length, so that it needs no more room on a disk that is full.
        text = json.dumps(self._about | {"beat": f"{self._beat:012d}"})
        try:
            with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644), "w") as file:
                file.write(text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                return
        self._renewed = time.monotonic()


@contextmanager
def cohort_lease(
    folder: Path, fence: int, cohort: str, trials: Collection[str]
) -> Iterator[Callable[[], None]]:
    """Holds a cohort's lease within its block; gives what to call before checkpoints are written.

    Args:
        folder: The study folder.
        fence: The number of the sweep; 0 without a sweep, where nobody else can train.
        cohort: The cohort.
        trials: Its trials.
    """
    if not fence:
        yield lambda: None
        return
    lease = CohortLease(folder, fence, cohort, trials)
    try:
        yield lease.check
    finally:
        lease.close()


class Fence:
    """The driver's side: who may train from now on, and whether others have stopped."""

    def __init__(self, folder: Path, number: int, *, stale_seconds: float = _STALE_SECONDS) -> None:
        """Puts every worker of an earlier sweep behind the fence.

        Args:
            folder: The study folder.
            number: The number of this sweep.
            stale_seconds: After how long a file that nobody renews is a dead worker's.
        """
        self.number = number
        self._folder = folder
        self._stale_seconds = stale_seconds
        self._given_up: list[str] = []
        self._seen: dict[Path, tuple[str, float]] = {}
        (folder / LEASES).mkdir(parents=True, exist_ok=True)
        self._write()

    def reap(self, on_note: Callable[[str], None]) -> None:
        """Kills the workers of earlier sweeps where it can, and waits until the others stop.

        Args:
            on_note: Called with what is waited for.
        """
        left = sorted((self._folder / LEASES).glob("*.json"))
        started, told = time.monotonic(), False
        while left := [path for path in left if not self._has_stopped(path)]:
            if not told and time.monotonic() - started > _QUIET_SECONDS:
                told = True
                on_note(
                    f"waiting until workers of an earlier sweep have stopped, or were silent for "
                    f"{self._stale_seconds:.0f} s: {', '.join(map(_about, left))}"
                )
            time.sleep(_POLL_SECONDS)

    def has_stopped(self, cohort: str) -> bool:
        """Gives a cohort of this sweep up, and returns whether it can train no more."""
        if cohort not in self._given_up:
            self._given_up.append(cohort)
            self._write()
        return self._has_stopped(lease_path(self._folder, self.number, cohort))

    def forget(self, cohort: str) -> None:
        """Removes what a cohort has left that is known to have ended."""
        lease_path(self._folder, self.number, cohort).unlink(missing_ok=True)

    def _has_stopped(self, path: Path) -> bool:
        try:
            text = path.read_text()
        except FileNotFoundError:
            return True
        process = _process(text)
        if process is not None and process.has_ended():
            path.unlink(missing_ok=True)
            return True
        if process is not None:
            process.kill()
        before, since = self._seen.get(path, ("", 0.0))
        if text != before:
            self._seen[path] = (text, time.monotonic())
            return False
        if time.monotonic() - since < self._stale_seconds:
            return False
        path.unlink(missing_ok=True)
        return True

    def _write(self) -> None:
        with os.fdopen(
            os.open(self._folder / LEASES / _FENCE, os.O_WRONLY | os.O_CREAT, 0o644), "w"
        ) as file:
            # One write, never shorter within a sweep: a reader has the old line, or the new one.
            file.write(" ".join([str(self.number), *self._given_up]) + "\n")
            file.truncate()


def may_train(fence_file: Path, fence: int, cohort: str) -> bool:
    """Returns whether a cohort of a sweep may still be trained.

    A node that does not share the study folder has no fence, and is not held up by one.
    """
    try:
        number, *given_up = fence_file.read_text().partition("\n")[0].split()
        return int(number) == fence and cohort not in given_up
    except (OSError, ValueError):
        return True


def lease_path(folder: Path, fence: int, cohort: str) -> Path:
    """Returns the path of a cohort's file."""
    return folder / LEASES / f"{fence}-{cohort}.json"


def _process(text: str) -> Process | None:
    """Returns whose file it is; None if it is being written."""
    try:
        return Process(**json.loads(text)["process"])
    except (ValueError, KeyError, TypeError):
        return None


def _about(path: Path) -> str:
    with suppress(OSError, ValueError, KeyError):
        saved = json.loads(path.read_text())
        process = Process(**saved["process"])
        return f"{', '.join(saved['trials'])} by process {process.pid} on {process.host}"
    return path.name
