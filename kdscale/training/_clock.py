"""What a trial's training costs in seconds, where its budget is seconds instead of epochs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch

Clock = Callable[[], float]
"""Returns seconds since some fixed moment."""

_FORGETS = 0.2


def device_clock(device: torch.device) -> Clock:
    """Returns a clock that waits for what the device was given before it is read."""
    if device.type != "cuda":
        return time.perf_counter

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


@dataclass
class Account:
    """What one trial has spent, over all of its attempts.

    Its training compute is what its steps would cost if it trained alone: its own student's, the
    whole of the live teacher's and the whole of the data's, whoever shares the latter two with it.

    Attributes:
        steps: Steps taken.
        student_seconds: Forward, loss, backward, exchange and optimiser of its own student.
        teacher_seconds: Passes of the teacher; none for a student without methods.
        data_seconds: Preparing batches.
        setup_seconds: What the first step of an attempt took beyond an ordinary one (allocation,
            compilation). Not training compute, as are the following.
        evaluation_seconds: Its share of evaluating on the validation split.
        paused_seconds: Saving, uploading, waiting for room on a disk and for whoever is told.
        step_seconds: How long a step is expected to take.
    """

    steps: int = 0
    student_seconds: float = 0.0
    teacher_seconds: float = 0.0
    data_seconds: float = 0.0
    setup_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    paused_seconds: float = 0.0
    step_seconds: float = 0.0

    @property
    def compute_seconds(self) -> float:
        """The trial's training compute."""
        return self.student_seconds + self.teacher_seconds + self.data_seconds

    def charge(self, student: float, teacher: float, data: float, *, steps: int = 1) -> None:
        """Adds steps that took so many seconds each."""
        self.student_seconds += steps * student
        self.teacher_seconds += steps * teacher
        self.data_seconds += steps * data
        seconds = student + teacher + data
        kept = 1.0 - _FORGETS if self.step_seconds else 0.0
        self.step_seconds = kept * self.step_seconds + (1.0 - kept) * seconds

    def reaches(self, goal_seconds: float) -> bool:
        """Returns whether the trial is nearer to a goal now than it would be a step later."""
        return self.compute_seconds + 0.5 * self.step_seconds >= goal_seconds

    def steps_unwatched(self, goal_seconds: float) -> int:
        """Returns how many steps it may take before anyone looks at the clock: half of the rest."""
        if not self.step_seconds:
            return 1
        return max(1, int(0.5 * (goal_seconds - self.compute_seconds) / self.step_seconds))

    def metrics(self, steps_an_epoch: int) -> dict[str, float]:
        """Returns what an epoch's row says of it."""
        return {
            "compute_seconds": self.compute_seconds,
            **{name: value for name, value in asdict(self).items() if name != "step_seconds"},
            "data_epochs": self.steps / steps_an_epoch,
        }


def to_bytes(accounts: Mapping[str, Account]) -> bytes:
    """Returns accounts by name as bytes, without rounding."""
    return json.dumps({name: asdict(account) for name, account in accounts.items()}).encode()


def from_bytes(content: bytes) -> dict[str, Account]:
    """Returns what `to_bytes` wrote."""
    return {name: Account(**fields) for name, fields in json.loads(content).items()}
