"""A cohort's lease on a storage that all nodes reach, for those that do not share the study folder.

Beside the files of `kdscale.search._cohort_lease` a worker puts one there while it trains, and
reads the fence there every few seconds. It renews nothing: while it cannot reach the storage it can
upload nothing either. So a driver waits until the file is gone, or for as long as a worker may need
to see the fence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from kdscale.files import Mirror, Remote

LEASES = "leases"
FENCE = "fence"
FENCE_NAME = f"{LEASES}/{FENCE}"

_LOOK_SECONDS = 5.0
_NOTICE_SECONDS = 30.0
"""After so long a worker has seen the fence, or cannot reach it."""

_ASK_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


class RemoteLease:
    """A worker's side: says on the storage what it trains, and looks whether it still may."""

    def __init__(
        self,
        remote: Remote,
        name: str,
        text: str,
        leave: Callable[[], None],
        may_train: Callable[[str], bool],
    ) -> None:
        """Begins to do both in the background.

        Args:
            remote: The study's folder on the storage.
            name: Name of the lease's file.
            text: What it says.
            leave: How to end when the right is lost.
            may_train: Whether it is not, by the fence's text.
        """
        self._remote = remote
        self._name = f"{LEASES}/{name}"
        self._text = text.encode()
        self._leave, self._may_train = leave, may_train
        self._ended = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def close(self) -> None:
        """Gives the right back, without waiting for the storage."""
        self._ended.set()

    def _keep(self) -> None:
        there = False
        while not self._ended.is_set():
            with suppress(OSError):
                # First said, then looked: a driver that does it the other way round misses nobody.
                if not there:
                    self._remote.put(self._text, self._name)
                    there = True
                fence = self._remote.get(FENCE_NAME)
                if fence is not None and not self._may_train(fence.decode()):
                    self._leave()
            self._ended.wait(_LOOK_SECONDS)
        with suppress(OSError):
            self._remote.delete(self._name)


class RemoteFence:
    """The driver's side: says who may train, and knows who has stopped."""

    def __init__(self, remote: Remote, *, notice_seconds: float = _NOTICE_SECONDS) -> None:
        """Says nothing yet.

        Args:
            remote: The study's folder on the storage.
            notice_seconds: After how long a worker has seen the fence, or cannot reach it.
        """
        self._remote = remote
        self._notice_seconds = notice_seconds
        self._mirror = Mirror(str(remote), quiet=True)
        self._asked: dict[str, float] = {}
        self._answers: dict[str, tuple[float, bool]] = {}

    def say(self, text: str) -> None:
        """Begins to write the fence."""
        put = partial(self._remote.put, text.encode(), FENCE_NAME)
        self._mirror.push(FENCE, put)

    def left(self) -> Mapping[str, str]:
        """Returns the leases that are there, by name, and what they say; none if it is away."""
        try:
            names = [name.rpartition("/")[2] for name in self._remote.sizes(LEASES)]
            found = {name: self._remote.get(f"{LEASES}/{name}") for name in names if name != FENCE}
        except OSError:
            return {}
        return {name: text.decode() for name, text in found.items() if text is not None}

    def has_stopped(self, name: str) -> bool:
        """Returns whether the worker of a lease trains no more; the first time starts its clock."""
        now = time.monotonic()
        if now - self._asked.setdefault(name, now) >= self._notice_seconds:
            self.forget(name)
            return True
        when, answer = self._answers.get(name, (-_ASK_SECONDS, False))
        if now - when >= _ASK_SECONDS:
            with suppress(OSError):
                answer = self._remote.get(f"{LEASES}/{name}") is None
            self._answers[name] = now, answer
        return answer

    def forget(self, name: str) -> None:
        """Begins to remove the lease of a worker that is known to have ended."""
        self._mirror.push(name, partial(self._remote.delete, f"{LEASES}/{name}"))

    def close(self) -> None:
        """Waits a moment for what has begun."""
        self._mirror.close(_CLOSE_SECONDS)
