"""What follows a student's backward pass: its mean over the workers, then its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kdscale.training._group import Group
from kdscale.training._memory import out_of_memory
from kdscale.training._reduce import Reducer
from kdscale.training._student import Student


class Exchange:
    """Takes students' gradients and lets them step.

    Args:
        students: Whoever trains.
        group: The workers.

    Attributes:
        alone: Whether there is one worker, and so nothing to exchange.
    """

    def __init__(self, students: Sequence[Student], group: Group) -> None:
        self.alone = group.size == 1
        self._students = students
        self._numbers = {student.member.name: n for n, student in enumerate(students)}
        self._reducer = (
            None
            if self.alone
            else Reducer([s.parameters for s in students], [s.skips for s in students], group)
        )

    def add(self, student: Student) -> None:
        """Takes the gradients that this worker has computed for a student."""
        if self._reducer is None:
            student.apply()
        else:
            self._reducer.add(self._numbers[student.member.name])

    def finish(self) -> None:
        """Ends the step of all students; with several workers each has been added."""
        if self._reducer is not None:
            self._reducer.finish()
            for student in self._students:
                student.apply()

    @contextmanager
    def failing_alone(self, student: Student) -> Iterator[None]:
        """Takes what its block raises for the student's failure, which leaves the others alone."""
        try:
            yield
        except Exception as error:
            # Memory is the cohort's matter; and of several workers, the others wait for this one.
            if out_of_memory(error) or not self.alone:
                raise
            student.failure = f"error at epoch {student.epoch + 1}: {type(error).__name__}: {error}"
