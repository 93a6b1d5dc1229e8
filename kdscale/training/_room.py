"""Saving students where the disk may be full: training waits, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from kdscale.files import DiskFullError, pauses
from kdscale.training._group import Group
from kdscale.training._student import Student


def save_all(
    students: Sequence[Student], save: Callable[[Student], None], group: Group
) -> Iterator[str]:
    """Saves students, and yields what it waits for, as often as the disk is too full.

    What was saved before stays whole. All workers take part in every try: none waits for worker 0
    longer than a pause, and all know afterwards that its files are there.

    Args:
        students: The students.
        save: Saves one; it does nothing on other workers than 0.
        group: The workers.
    """
    left = list(students)
    for pause in pauses():
        why = _saved(left, save)
        if not group.agree(float(bool(why))):
            return
        yield why
        time.sleep(pause)


def _saved(left: list[Student], save: Callable[[Student], None]) -> str:
    """Takes the students out that could be saved, and returns what the next one waits for."""
    while left:
        try:
            save(left[0])
        except DiskFullError as error:
            return str(error)
        del left[0]
    return ""
