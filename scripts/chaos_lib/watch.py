"""Every checkpoint that a study writes, as it is written: what was trained, and what again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kdscale.training import checkpoint_path
from kdscale.training._checkpoint import load_checkpoint

_LOOK_SECONDS = 0.03


@dataclass(frozen=True)
class Written:
    """A checkpoint of one epoch.

    Attributes:
        trial: Of which trial.
        at: When it was seen, in seconds of the monotonic clock.
        copy: What was in it.
    """

    trial: str
    at: float
    copy: Path


class Watch:
    """Looks for new checkpoints in a thread and keeps a copy of each.

    Attributes:
        written: What was seen, in order.
    """

    def __init__(self, trials: Path, copies: Path) -> None:
        self.written: list[Written] = []
        self._trials = trials
        self._copies = copies
        self._seen: dict[str, tuple[int, int]] = {}
        self._ended = threading.Event()
        copies.mkdir(parents=True)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Looks for the last time."""
        self._ended.set()
        self._thread.join()

    def before_last(self, trial: str) -> Path | None:
        """Returns a copy of a trial's checkpoint before the one that it has now, if it had one."""
        of_trial = [one.copy for one in self.written if one.trial == trial]
        return of_trial[-2] if len(of_trial) > 1 else None

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self._look_once()
        self._look_once()

    def _look_once(self) -> None:
        for folder in self._trials.glob("*"):
            with suppress(OSError):
                self._take(folder)

    def _take(self, folder: Path) -> None:
        with checkpoint_path(folder).open("rb") as file:
            about = Path(f"/proc/self/fd/{file.fileno()}").stat()
            identity = (about.st_ino, about.st_mtime_ns)
            if self._seen.get(folder.name) == identity:
                return
            content = file.read()
        self._seen[folder.name] = identity
        copy = self._copies / f"{len(self.written):06}-{folder.name}.pt"
        copy.write_bytes(content)
        self.written.append(Written(folder.name, time.monotonic(), copy))

    def forget(self, trial: str) -> None:
        """Takes the checkpoint that a trial has now for one that was seen: it was put there."""
        about = checkpoint_path(self._trials / trial).stat()
        self._seen[trial] = (about.st_ino, about.st_mtime_ns)


@dataclass(frozen=True)
class Repeated:
    """Epochs trained again after a kill.

    Attributes:
        epochs: Of all trials together.
        most: Of the trial with most.
        same: Whether the second time gave the bits of the first.
    """

    epochs: int = 0
    most: int = 0
    same: bool = True


def repeated_after(written: Sequence[Written], kills: Sequence[float]) -> list[Repeated]:
    """Returns what was trained again after each kill and before the next one.

    Args:
        written: All checkpoints, in order.
        kills: When there were kills, in order.
    """
    first: dict[tuple[str, int], object] = {}
    counts: list[dict[str, int]] = [{} for _ in kills]
    same = [True] * len(kills)
    for one in written:
        saved = load_checkpoint(one.copy)
        saved.pop("seconds")
        key = one.trial, int(saved["epoch"])
        before = first.setdefault(key, saved)
        if before is saved:
            continue
        after = max((i for i, at in enumerate(kills) if at <= one.at), default=None)
        if after is None:
            raise AssertionError(f"{key} was trained twice before the first kill")
        counts[after][one.trial] = counts[after].get(one.trial, 0) + 1
        same[after] = same[after] and same_content(before, saved)
    return [
        Repeated(sum(count.values()), max(count.values(), default=0), equal)
        for count, equal in zip(counts, same, strict=True)
    ]


def same_content(a: object, b: object) -> bool:
    """Returns whether two trees of dictionaries, sequences, tensors and values are equal."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same_content(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same_content, a, b))
    return type(a) is type(b) and a == b
