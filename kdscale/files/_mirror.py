"""A thread that carries files to a remote folder while training goes on."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
_TRIES = 2
"""Failures in a row before the storage counts as away: from then on nobody waits for it."""


def pauses() -> Iterator[float]:
    """Yields how many seconds to wait between tries, without end."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


class Mirror:
    """Carries out pieces of work one by one, each again and again until it succeeds.

    Work that is waited for is most seconds away from success. While the storage is away `settle`
    does not wait, and `problem` says why; the thread tries on.

    Args:
        where: Names the remote folder, for the message.
        quiet: Whether another mirror of the same folder says that it is away.

    Attributes:
        problem: Why the storage is away; empty while it is there.
    """

    def __init__(self, where: str, *, quiet: bool = False) -> None:
        self.problem = ""
        self._where = where
        self._work: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._running = ""
        self._thread: threading.Thread | None = None
        self._closed = False
        self._warned = quiet

    @property
    def left(self) -> tuple[str, ...]:
        """What has not been carried out yet, by name."""
        with self._changed:
            return tuple(dict.fromkeys((self._running, *self._work))) if self._busy else ()

    def push(self, name: str, work: Callable[[], None]) -> None:
        """Takes a piece of work; it replaces one of the same name that has not begun.

        Args:
            name: Its name.
            work: Does it; raises if the storage is away.
        """
        with self._changed:
            self._work[name] = work
            if self._thread is None:
                self._thread = threading.Thread(target=self._carry, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def settle(self, seconds: float | None = None) -> bool:
        """Waits until all is carried out or the storage is away, and returns whether all is.

        Args:
            seconds: The longest to wait; None for as long as it takes.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._busy or bool(self.problem), seconds)
            return not self._busy

    def close(self, seconds: float) -> tuple[str, ...]:
        """Ends the thread, and returns what was left to be done.

        Args:
            seconds: The longest to wait for what is left.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, seconds)
        left = self.left
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and not left:
            self._thread.join()
        return left

    @property
    def _busy(self) -> bool:
        return bool(self._running or self._work)

    def _carry(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._work) or self._closed)
                if self._closed:
                    return
                self._running = next(iter(self._work))
                work = self._work.pop(self._running)
            self._try(work)
            with self._changed:
                self._running = ""
                self._changed.notify_all()

    def _try(self, work: Callable[[], None]) -> None:
        for failures, pause in enumerate(pauses(), start=1):
            try:
                work()
            except Exception as error:  # whatever it is: whoever waits must not wait for ever
                self._failed(error, failures)
            else:
                self.problem = ""
                return
            with self._changed:
                # Newer work of this name makes this one needless.
                if self._changed.wait_for(lambda: self._closed, pause):
                    return
                work = self._work.pop(self._running, work)

    def _failed(self, error: Exception, failures: int) -> None:
        if failures < _TRIES and not self.problem:
            return
        why = " ".join(str(error).split())
        with self._changed:
            self.problem = (
                f"{self._where} is away ({why}): training goes on, and what is new is kept in the "
                "study folder alone until it is back"
            )
            self._changed.notify_all()
        if not self._warned:
            self._warned = True
            warnings.warn(self.problem, RuntimeWarning, stacklevel=2)


def patiently(work: Callable[[], None], seconds: float) -> None:
    """Does a piece of work, and again while it raises OSError.

    Args:
        work: What to do.
        seconds: After so many the error is raised.
    """
    end = time.monotonic() + seconds
    for pause in pauses():
        try:
            work()
        except OSError:
            if time.monotonic() + pause > end:
                raise
        else:
            return
        time.sleep(pause)
