"""What a cohort costs by its size: a few steps of copies of its members, timed and weighed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from kdscale.data import Split, TaskData
from kdscale.models import Network
from kdscale.training._cohort import Cohort, train_cohort
from kdscale.training._group import Group
from kdscale.training._memory import peak_bytes
from kdscale.training._teach import CachedTeacher

_STEPS = 2
_EPOCHS = 2
"""The first sets up what later steps reuse, and is not counted."""
_VALIDATION_IMAGES = 256
_GROWTH = 2
_CAP_SECONDS = 20.0


@dataclass(frozen=True)
class Measured:
    """What one size of cohort costs.

    Attributes:
        size: Students that were trained together.
        step_seconds: Seconds of a step of all of them.
        peak_bytes: The most memory that the process has held.
    """

    size: int
    step_seconds: float
    peak_bytes: int


class _Head:
    """The first images of a split, with the labels of all: what methods keep has its true size."""

    def __init__(self, split: Split, length: int) -> None:
        self._split = split
        self._length = min(length, len(split))

    @property
    def labels(self) -> Tensor:
        return self._split.labels

    def __len__(self) -> int:
        return self._length

    def gather(self, indices: Tensor) -> Tensor:
        return self._split.gather(indices)


def measure_cohorts(
    cohort: Cohort, data: TaskData, teacher: Network | CachedTeacher | None, group: Group
) -> Iterator[Measured]:
    """Yields what cohorts of 1, 2, 4, … of the members cost, up to all of them.

    Trains copies from the first epoch, whose files go to a folder that is deleted: no member's
    own state is read or written. Ends early before it takes more than some 20 seconds.

    Args:
        cohort: The members, as they would train together.
        data: Training and validation images.
        teacher: The teacher on the group's device, or the same behind its cache.
        group: The workers.
    """
    batch_size = cohort.members[0].recipe.batch_size
    data = replace(
        data,
        train=_Head(data.train, _STEPS * batch_size),
        validation=_Head(data.validation, _VALIDATION_IMAGES),
    )
    started = time.perf_counter()
    size = 1
    while True:
        before = time.perf_counter()
        found = _measured(cohort, size, data, teacher, group)
        if found is None:  # none of these members can be trained with this pair
            return
        yield found
        now = time.perf_counter()
        spent = group.agree(now - started + _GROWTH * (now - before))
        if size == len(cohort.members) or spent > _CAP_SECONDS:
            return
        size = min(_GROWTH * size, len(cohort.members))


def _measured(
    cohort: Cohort,
    size: int,
    data: TaskData,
    teacher: Network | CachedTeacher | None,
    group: Group,
) -> Measured | None:
    with TemporaryDirectory(prefix="kdscale-") as scratch:
        copies = tuple(
            replace(member, folder=Path(scratch, str(number)))
            for number, member in enumerate(cohort.members[:size])
        )
        trial = replace(
            cohort,
            members=copies,
            epochs=max(cohort.epochs, _EPOCHS + 1),  # none is finished, none leaves a student
            until=_EPOCHS,
            per_trial_seconds=None,
        )
        if group.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(group.device)
        told = list(train_cohort(trial, data, teacher, group))
    going = [part for part in told[-1] if part.status == "running"]
    if not going:
        return None
    before = {part.name: part.seconds for part in told[-2]}
    seconds = sum(part.seconds - before[part.name] for part in going)
    return Measured(len(going), seconds / _STEPS, peak_bytes(group.device))
