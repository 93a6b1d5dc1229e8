"""The gradients of all students of a cohort, averaged over its workers in a few large messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdscale.training._group import Group, Mean

BUCKET_BYTES = 25 * 2**20
"""Gradients that go out together, as in DDP."""


@dataclass
class _Bucket:
    """A flat tensor that holds the gradients of neighbouring parameters.

    Attributes:
        flat: The gradients, filled up to a multiple of the number of workers.
        views: Each parameter's place in it, of the parameter's shape and strides.
        students: Numbers of the students that have a place in it.
        missing: Those of them whose gradients are still to come in this step.
        mean: The average under way.
    """

    flat: Tensor
    views: list[Tensor]
    students: frozenset[int]
    missing: set[int] = field(default_factory=set)
    mean: Mean | None = None


class Reducer:
    """Averages gradients over the workers while other students still compute theirs.

    Each step every student's gradients are added once, in the same order on all workers, and then
    `finish` is called. A gradient that no worker has stays None. One that some have counts as 0 on
    the others: only students that may skip parameters are asked for that, as a GPU has to wait for
    the answer.

    Args:
        students: Each student's parameters.
        skips: Whether a step of the student may leave some of its parameters out.
        group: The workers.
        bucket_bytes: Gradients that go out together.
    """

    def __init__(
        self,
        students: Sequence[Sequence[nn.Parameter]],
        skips: Sequence[bool],
        group: Group,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._students = students
        self._group = group
        self._buckets: list[_Bucket] = []
        self._views: list[list[Tensor]] = [[] for _ in students]
        self._of_student: list[list[_Bucket]] = [[] for _ in students]
        self._fill(bucket_bytes)
        self._skipping = [number for number, may in enumerate(skips) if may]
        self._present: dict[int, list[bool]] = {}
        self._sent: list[_Bucket] = []
        self._reset()

    def add(self, number: int) -> None:
        """Takes a student's gradients, and sends the buckets that are full with them.

        Args:
            number: The student's place among the students.
        """
        parameters, views = self._students[number], self._views[number]
        self._present[number] = [parameter.grad is not None for parameter in parameters]
        pairs = [
            (view, parameter.grad)
            for view, parameter in zip(views, parameters, strict=True)
            if parameter.grad is not None
        ]
        if pairs:
            torch._foreach_copy_([view for view, _ in pairs], [grad for _, grad in pairs])
        for view, present in zip(views, self._present[number], strict=True):
            if not present:
                view.zero_()
        for bucket in self._of_student[number]:
            bucket.missing.remove(number)
            if not bucket.missing:
                for earlier in self._sent:
                    assert earlier.mean is not None
                    earlier.mean.advance()
                bucket.mean = self._group.start_mean(bucket.flat)
                self._sent.append(bucket)

    def finish(self) -> None:
        """Gives every parameter its mean gradient."""
        somewhere = self._somewhere()
        for bucket in self._sent:
            assert bucket.mean is not None
            bucket.mean.finish()
        for number, parameters in enumerate(self._students):
            present = somewhere.get(number, self._present[number])
            for parameter, view, has in zip(parameters, self._views[number], present, strict=True):
                parameter.grad = view if has else None
        self._reset()

    def _somewhere(self) -> dict[int, list[bool]]:
        """Returns, for students that may skip parameters, which gradients any worker has."""
        if not self._skipping:
            return {}
        flags = [flag for number in self._skipping for flag in self._present[number]]
        counts = self._group.sum(
            torch.tensor(flags, dtype=torch.float32, device=self._group.device)
        )
        found = iter((counts > 0).tolist())
        return {number: [next(found) for _ in self._students[number]] for number in self._skipping}

    def _reset(self) -> None:
        self._sent = []
        self._present = {}
        for bucket in self._buckets:
            bucket.missing = set(bucket.students)
            bucket.mean = None

    def _fill(self, bucket_bytes: int) -> None:
        """Deals the parameters out to buckets, in order."""
        waiting: list[tuple[int, nn.Parameter]] = []
        held_bytes = 0
        for number, parameters in enumerate(self._students):
            for parameter in parameters:
                if waiting and (
                    held_bytes >= bucket_bytes or parameter.dtype != waiting[0][1].dtype
                ):
                    self._close(waiting)
                    waiting, held_bytes = [], 0
                waiting.append((number, parameter))
                held_bytes += parameter.numel() * parameter.element_size()
        if waiting:
            self._close(waiting)

    def _close(self, held: list[tuple[int, nn.Parameter]]) -> None:
        count = sum(parameter.numel() for _, parameter in held)
        count += -count % self._group.size
        flat = torch.zeros(count, dtype=held[0][1].dtype, device=held[0][1].device)
        bucket = _Bucket(flat, [], frozenset(number for number, _ in held))
        start = 0
        for number, parameter in held:
            view = _like(flat[start : start + parameter.numel()], parameter)
            bucket.views.append(view)
            self._views[number].append(view)
            start += parameter.numel()
        for number in sorted(bucket.students):
            self._of_student[number].append(bucket)
        self._buckets.append(bucket)


def _like(flat: Tensor, parameter: Tensor) -> Tensor:
    """Returns the flat tensor in a parameter's shape, and its memory format where it has one."""
    last = parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    if last and not parameter.is_contiguous():
        return flat.as_strided(parameter.shape, parameter.stride(), flat.storage_offset())
    return flat.view(parameter.shape)
