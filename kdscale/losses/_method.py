"""What a method is: a named loss term with hyperparameters, needs and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from kdscale.errors import UserError, did_you_mean
from kdscale.outputs import Need, Outputs, OutputShapes
from kdscale.records import Value

Term = Callable[[Outputs, Outputs, Tensor], Tensor]
"""(student, teacher, target ``[B]`` int64) -> scalar loss; an nn.Module if it owns parameters."""


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter of a method, spelled as in files and papers (``lambda``).

    Attributes:
        name: Its name in study files.
        default: Its value where a file says nothing; its type is the hyperparameter's type.
        help: One line, with units where there are any.
        low: Smallest allowed value.
        high: Largest allowed value.
        low_open: ``low`` itself is refused.
        choices: The allowed words of a string.
        search: The range that papers searched.
    """

    name: str
    default: Value
    help: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    choices: tuple[str, ...] = ()
    search: tuple[float, float] | None = None

    def broken_rule(self, value: Value) -> str:
        """Returns the rule that ``value`` breaks, stated positively, or an empty string."""
        if isinstance(self.default, bool):
            return "" if isinstance(value, bool) else "must be true or false"
        if isinstance(self.default, str):
            return "" if value in self.choices else f"must be one of {', '.join(self.choices)}"
        if isinstance(value, bool | str) or not math.isfinite(value):
            return "must be a finite number"
        if isinstance(self.default, int) and value != int(value):
            return "must be a whole number"
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return f"must be {'>' if self.low_open else '>='} {self.low:g}"
        if self.high is not None and value > self.high:
            return f"must be <= {self.high:g}"
        return ""


@dataclass(frozen=True)
class PairShapes:
    """The shapes that a method is built for.

    Attributes:
        student: The student's output shapes.
        teacher: The teacher's output shapes.
        batch_size: Images in the global batch, over all workers.
    """

    student: OutputShapes
    teacher: OutputShapes
    batch_size: int


@dataclass(frozen=True)
class Method:
    """One published way to distil.

    Attributes:
        name: Its name in study files.
        title: Its full name.
        source: Authors, venue, arXiv number.
        hyperparameters: All of them, in the order to list them.
        build: Makes the term from shapes and complete hyperparameters (see `complete`).
        needs: The outputs it asks for under these hyperparameters.
        refuse: Why it cannot serve this pair, or an empty string.
        couples_batch: It looks across the batch, so its inputs are gathered over all workers.
    """

    name: str
    title: str
    source: str
    hyperparameters: tuple[Hyperparameter, ...]
    build: Callable[[PairShapes, Mapping[str, Value]], Term]
    needs: Callable[[Mapping[str, Value]], frozenset[Need]]
    refuse: Callable[[PairShapes, Mapping[str, Value]], str]
    couples_batch: bool = False

    def complete(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Returns every hyperparameter's value: the given ones, and defaults for the rest.

        Args:
            given: Hyperparameters by name.

        Raises:
            UserError: Unknown names or forbidden values, all of them in one message.
        """
        known = {item.name: item for item in self.hyperparameters}
        problems = []
        for name, value in given.items():
            if name not in known:
                hint = did_you_mean(name, known) or f"it has {', '.join(known)}"
                problems.append(f'{self.name} has no hyperparameter "{name}" ({hint})')
            elif rule := known[name].broken_rule(value):
                problems.append(f"{self.name}: {name} {rule}, but got {value!r}")
        if problems:
            raise UserError("\n".join(problems))
        return {
            name: type(item.default)(given.get(name, item.default)) for name, item in known.items()
        }


def needs_logits(hyperparameters: Mapping[str, Value]) -> frozenset[Need]:
    """Returns the needs of a method that reads logits alone."""
    return frozenset({"logits"})


def refuse_unequal_classes(shapes: PairShapes) -> str:
    """Returns why two sets of logits cannot be compared class by class, or an empty string."""
    student, teacher = shapes.student.classes, shapes.teacher.classes
    if student != teacher:
        return (
            "student and teacher must have the same number of classes, "
            f"but got {student} and {teacher}"
        )
    return ""
