"""Errors that a user can mend: shown as plain text with exit code 2, never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


class UserError(Exception):
    """Something the user wrote or has on disk must change; the message says what and how."""


@contextmanager
def about(key: str) -> Iterator[None]:
    """Names the field of a study file that the errors of its block are about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a study file or an override.

    Attributes:
        where: ``file.yaml:12`` or the override as it was typed.
        path: The dotted field, for example ``parameters.alpha.min``; empty when there is none.
        value: The value as it was written.
        rule: The rule that it breaks, stated positively: "must be at least 1".
        hint: The nearest valid spelling or the mend; empty when there is none.
    """

    where: str
    path: str
    value: str
    rule: str
    hint: str = ""

    def __str__(self) -> str:
        subject = f"{self.path}: " if self.path else ""
        got = f", but got {self.value}" if self.value else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.where}: {subject}{self.rule}{got}{hint}"


class StudyFileError(UserError):
    """A study file with everything that is wrong with it, found in one pass."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ``did you mean "resnet8x4"?`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else ""
