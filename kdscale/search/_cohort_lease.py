"""Who may train a trial: one worker at a time, whatever became of the driver that asked it to.

While a worker trains a cohort it keeps a small file in the study folder that says so, and writes
it anew every two seconds. Beside these files lies the fence: the number of the sweep that owns the
study, and the cohorts that it has given up. A worker behind the fence ends its own process: before
it starts, within two seconds while it trains, and always before it would write a checkpoint. So
does one that cannot renew its file. A driver hands a trial out again only when the file of whoever
had it before is gone, its process is, or nobody has renewed it for long enough.

Files are written in place, since network file systems notice that soonest. Nodes that do not share
the study folder have a second lease on `storage.remote`: `kdscale.search._remote_lease`.
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
from functools import partial
from pathlib import Path
from typing import Protocol

from kdscale.files import Remote
from kdscale.search._process import Process, this_process
from kdscale.search._remote_lease import FENCE, LEASES, RemoteFence, RemoteLease

_BEAT_SECONDS = 2.0
_OWN_STALE_SECONDS = 20.0
"""After so long without renewal a worker stops itself, before others take it for dead."""

_STALE_SECONDS = 30.0
_POLL_SECONDS = 0.2
_QUIET_SECONDS = 1.0
_SUPERSEDED = 75
"""What a worker's process ends with: sysexits' "try again"."""


class Leases(Protocol):
    """Whoever knows where cohorts train."""

    def has_stopped(self, cohort: str) -> bool:
        """Gives a cohort up, and returns whether it can train no more."""

    def forget(self, cohort: str) -> None:
        """Takes note that a cohort has ended."""


class CohortLease:
    """A worker's side: the right to train a cohort, for as long as it lasts."""

    def __init__(
        self,
        folder: Path,
        fence: int,
        cohort: str,
        trials: Collection[str],
        leave: Callable[[], None] = lambda: os._exit(_SUPERSEDED),
        remote: Remote | None = None,
    ) -> None:
        """Checks the fence, and says who trains what.

        Args:
            folder: The study folder.
            fence: The number of the sweep that asked for it.
            cohort: The cohort.
            trials: Its trials.
            leave: How to end when the right is lost.
            remote: The study's folder on a storage that all nodes reach, if there is one.
        """
        self._fence_file = folder / LEASES / FENCE
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
        self._elsewhere: RemoteLease | None = None
        if remote is not None:
            may = partial(allows, fence=fence, cohort=cohort)
            text = json.dumps(self._about)
            self._elsewhere = RemoteLease(remote, self._path.name, text, leave, may)

    def check(self) -> None:
        """Ends this process if it may train no more."""
        late = time.monotonic() - self._renewed > _OWN_STALE_SECONDS
        if late or not may_train(self._fence_file, self._fence, self._cohort):
            self._leave()

    def close(self) -> None:
        """Gives the right back."""
        self._ended.set()
        self._thread.join()
        if self._elsewhere is not None:
            self._elsewhere.close()
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
    folder: Path, fence: int, cohort: str, trials: Collection[str], remote: Remote | None = None
) -> Iterator[Callable[[], None]]:
    """Holds a cohort's lease within its block; gives what to call before checkpoints are written.

    Args:
        folder: The study folder.
        fence: The number of the sweep; 0 without a sweep, where nobody else can train.
        cohort: The cohort.
        trials: Its trials.
        remote: The study's folder on a storage that all nodes reach, if there is one.
    """
    if not fence:
        yield lambda: None
        return
    lease = CohortLease(folder, fence, cohort, trials, remote=remote)
    try:
        yield lease.check
    finally:
        lease.close()


class Fence:
    """The driver's side: who may train from now on, and whether others have stopped."""

    def __init__(
        self,
        folder: Path,
        number: int,
        elsewhere: RemoteFence | None = None,
        *,
        stale_seconds: float = _STALE_SECONDS,
    ) -> None:
        """Puts every worker of an earlier sweep behind the fence.

        Args:
            folder: The study folder.
            number: The number of this sweep.
            elsewhere: The fence of nodes that do not share the study folder.
            stale_seconds: After how long a file that nobody renews is a dead worker's.
        """
        self.number = number
        self._folder = folder
        self._elsewhere = elsewhere
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
        here = {path: _text(path) for path in (self._folder / LEASES).glob("*.json")}
        there = self._elsewhere.left() if self._elsewhere is not None else {}
        said = {self._folder / LEASES / name: text for name, text in there.items()} | here
        left = sorted(said)
        started, told = time.monotonic(), False
        while left := [path for path in left if not self._has_stopped(path)]:
            if not told and time.monotonic() - started > _QUIET_SECONDS:
                told = True
                on_note(
                    f"waiting until workers of an earlier sweep have stopped, or were silent for "
                    f"{self._stale_seconds:.0f} s: {', '.join(_about(said[one]) for one in left)}"
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
        self._remove(lease_path(self._folder, self.number, cohort))

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if self._elsewhere is not None:
            self._elsewhere.forget(path.name)

    def _has_stopped(self, path: Path) -> bool:
        try:
            text = path.read_text()
        except FileNotFoundError:
            return self._elsewhere is None or self._elsewhere.has_stopped(path.name)
        process = _process(text)
        if process is not None and process.has_ended():
            self._remove(path)
            return True
        if process is not None:
            process.kill()
        before, since = self._seen.get(path, ("", 0.0))
        if text != before:
            self._seen[path] = (text, time.monotonic())
            return False
        if time.monotonic() - since < self._stale_seconds:
            return False
        self._remove(path)
        return True

    def _write(self) -> None:
        text = " ".join([str(self.number), *self._given_up]) + "\n"
        path = self._folder / LEASES / FENCE
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "w") as file:
            # One write, never shorter within a sweep: a reader has the old line, or the new one.
            file.write(text)
            file.truncate()
        if self._elsewhere is not None:
            self._elsewhere.say(text)


def may_train(fence_file: Path, fence: int, cohort: str) -> bool:
    """Returns whether a cohort of a sweep may still be trained.

    A node that does not share the study folder has no fence, and is not held up by one.
    """
    try:
        return allows(fence_file.read_text(), fence, cohort)
    except OSError:
        return True


def allows(text: str, fence: int, cohort: str) -> bool:
    """Returns whether a fence's text lets a cohort of a sweep be trained."""
    try:
        number, *given_up = text.partition("\n")[0].split()
        return int(number) == fence and cohort not in given_up
    except ValueError:  # it is being written
        return True


def fence_number(text: str) -> int:
    """Returns the number of the sweep that a fence's text names; 0 if it names none."""
    first = text.partition("\n")[0].partition(" ")[0]
    return int(first) if first.isdecimal() else 0


def lease_path(folder: Path, fence: int, cohort: str) -> Path:
    """Returns the path of a cohort's file."""
    return folder / LEASES / f"{fence}-{cohort}.json"


def _process(text: str) -> Process | None:
    """Returns whose file it is; None if it is being written."""
    try:
        return Process(**json.loads(text)["process"])
    except (ValueError, KeyError, TypeError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has stopped
        return ""


def _about(text: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        saved = json.loads(text)
        process = Process(**saved["process"])
        return f"{', '.join(saved['trials'])} by process {process.pid} on {process.host}"
    return "a worker that is writing its lease"
