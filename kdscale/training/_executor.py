"""How the students of a cohort take a step: one after the other, or stacked."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Protocol, get_args

import torch

from kdscale.errors import UserError
from kdscale.training._exchange import Exchange
from kdscale.training._group import Group
from kdscale.training._spec import RecipeSpec
from kdscale.training._stack import Kind
from kdscale.training._stack_trial import refusal, seconds_of_a_step
from kdscale.training._stacked import Stacked, joins
from kdscale.training._step import Lesson
from kdscale.training._student import Student

_LOG = logging.getLogger(__name__)


class Executor(Protocol):
    """Computes and steps some of a cohort's students."""

    def step(self, students: Sequence[Student], lesson: Lesson) -> None:
        """Trains on one batch.

        Args:
            students: Those that it was made for, in the same order.
            lesson: The batch and what the teacher says to it.
        """

    def close(self) -> None:
        """Gives the students back as they were."""


class Loop:
    """One student after the other: the reference, bitwise the student alone.

    Args:
        exchange: Takes each student's gradients.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def step(self, students: Sequence[Student], lesson: Lesson) -> None:
        """Trains on one batch."""
        for student in students:
            with self._exchange.failing_alone(student):
                if self._exchange.alone:
                    student.step(lesson)
                else:
                    student.compute(lesson)
                    self._exchange.add(student)

    def close(self) -> None:
        """Leaves the students as they are."""


class Steps:
    """Takes a cohort's steps, by executors that are made anew whenever its members change.

    Args:
        recipe: The cohort's recipe, which names the executor.
        group: The workers.
    """

    def __init__(self, recipe: RecipeSpec, group: Group) -> None:
        self._recipe = recipe
        self._group = group
        self._names: list[str] = []
        self._parts: list[tuple[Executor, list[Student]]] = []
        self._exchange = Exchange([], Group())

    def take(self, students: Sequence[Student], lesson: Lesson) -> None:
        """Trains on one batch.

        Args:
            students: Those that have not failed.
            lesson: The batch and what the teacher says to it.

        Raises:
            UserError: If the recipe names an executor that cannot train this architecture.
        """
        names = [student.member.name for student in students]
        if names != self._names:
            self.close()
            self._make(students, lesson)
            self._names = names
        for executor, own in self._parts:
            executor.step(own, lesson)
        self._exchange.finish()

    def close(self) -> None:
        """Gives all students back as they were."""
        for executor, _ in self._parts:
            executor.close()
        self._names, self._parts = [], []

    def _make(self, students: Sequence[Student], lesson: Lesson) -> None:
        together = [student for student in students if joins(student)]
        kind = self._kind(together, lesson)
        if kind is None:
            together = []
        others = [student for student in students if student not in together]
        # Stacked students come first, on all workers: gradients are added in this order.
        self._exchange = Exchange([*together, *others], self._group)
        if kind is not None:
            self._parts.append((Stacked(kind, together, self._exchange), together))
        if others:
            self._parts.append((Loop(self._exchange), others))

    def _kind(self, students: Sequence[Student], lesson: Lesson) -> Kind | None:
        """Returns how to stack students; None to train them one after the other."""
        named = self._recipe.executor
        if not students or named == "loop" or self._recipe.compile:
            return None
        if named != "auto":
            reason = refusal(named, students[0].network, lesson.images)
            if reason:
                raise UserError(
                    f"recipe.executor: {named} cannot train this student: {reason} "
                    "(write executor: auto or loop)"
                )
            return named
        if len(students) == 1 or lesson.images.device.type != "cuda":
            return None
        return fastest(students, lesson, self._group)


def fastest(students: Sequence[Student], lesson: Lesson, group: Group) -> Kind | None:
    """Returns the fastest way to stack students, by timing; None if one after the other is.

    Nothing of the students changes. All workers return the same.

    Args:
        students: Students that `joins`.
        lesson: A batch.
        group: The workers.
    """
    networks = [student.network for student in students]
    bf16 = students[0].member.recipe.precision == "bf16"
    kinds: list[Kind | None] = [None, *get_args(Kind)]
    seconds = []
    for kind in kinds:
        reason = refusal(kind, networks[0], lesson.images) if kind else ""
        if reason:
            _LOG.info("executor %s: %s", kind, reason)
        seconds.append(
            math.inf if reason else seconds_of_a_step(kind, networks, lesson.images, bf16=bf16)
        )
    if lesson.images.device.type == "cuda":
        torch.cuda.empty_cache()  # the copies are gone
    total = group.sum(torch.tensor(seconds, dtype=torch.float64, device=group.device)).tolist()
    found = kinds[total.index(min(total))]
    told = ", ".join(
        f"{kind or 'loop'} {1000 * one / group.size:.1f} ms"
        for kind, one in zip(kinds, total, strict=True)
    )
    _LOG.info("executor %s for %d students: %s", found or "loop", len(students), told)
    return found
