"""What a method is: a named loss term with hyperparameters, needs and refusals."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kdscale.errors import UserError, did_you_mean
from kdscale.losses._batch import Batch
from kdscale.outputs import LOGITS, Need, OutputShapes
from kdscale.records import Value

Term = Callable[[Batch], Tensor]
"""One step of one method -> scalar loss; an nn.Module if it owns parameters or memory."""

Reads = Literal[
    "logits",
    "embedding",
    "map",
    "class maps",
    "stages",
    "pre-activations",
    "classifier",
    "tail",
    "labels",
    "index",
    "second view",
    "memory",
    "adaptor",
]
"""What a method may ask for, as the table of methods spells it."""

NUMBERS = r"-?\d+(\.\d+)?( -?\d+(\.\d+)?)*"
"""The pattern of a hyperparameter that is a list of numbers: ``2 1.5 -1``."""


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
        pattern: The regular expression that a string without choices must match.
        pattern_help: That pattern in words.
        search: The range that papers searched.
    """

    name: str
    default: Value
    help: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ""
    pattern_help: str = ""
    search: tuple[float, float] | None = None

    def broken_rule(self, value: Value) -> str:
        """Returns the rule that ``value`` breaks, stated positively, or an empty string."""
        if isinstance(self.default, bool):
            return "" if isinstance(value, bool) else "must be true or false"
        if isinstance(self.default, str) and self.pattern:
            fits = isinstance(value, str) and re.fullmatch(self.pattern, value)
            return "" if fits else f"must be {self.pattern_help}"
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
    """What a method is built for.

    Attributes:
        student: The student's output shapes.
        teacher: The teacher's output shapes.
        batch_size: Images in the global batch, over all workers.
        train_labels: Labels of the whole training split, int64 ``[n]`` on the CPU, for methods
            that remember images; None where there is no training split.
    """

    student: OutputShapes
    teacher: OutputShapes
    batch_size: int
    train_labels: Tensor | None = None


@dataclass(frozen=True)
class Needs:
    """The outputs that a method asks of the two networks.

    Attributes:
        student: Of the student.
        teacher: Of the teacher.
        second_view: The same outputs also for a second, strongly augmented view of each image.
    """

    student: frozenset[Need] = LOGITS
    teacher: frozenset[Need] = LOGITS
    second_view: bool = False


def needs_logits(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    """Returns the needs of a method that reads logits alone."""
    return Needs()


def needs_of_both(*needs: Need) -> Callable[[PairShapes, Mapping[str, Value]], Needs]:
    """Returns the ``needs`` of a method that always asks the same of both networks."""
    both = frozenset(needs)
    return lambda shapes, hyperparameters: Needs(both, both)


@dataclass(frozen=True)
class Method:
    """One published way to distil.

    Attributes:
        name: Its name in study files.
        title: Its full name.
        source: Authors, venue, arXiv number.
        reads: All that it may ask for.
        hyperparameters: All of them, in the order to list them.
        build: Makes the term from shapes and complete hyperparameters (see `complete`).
        needs: The outputs it asks for from this pair under these hyperparameters.
        refuse: Why it cannot serve this pair, or an empty string; asked before ``needs``.
        couples_batch: It looks across the batch, as an adaptor with BatchNorm does, so what it
            needs is gathered over all workers.
        student: What becomes of the student's end: nothing, or the network of that name
            in `kdscale.models` (SimKD's projector, NORM's expansion), which stays after training.
        dense: It is for networks that put out a map of logits.
        skips: A step may leave some of its parameters out, which DDP must be told.
        all_classes: It needs the teacher's own logit of every class, if it reads logits: it
            ranks, correlates or normalises them, or takes the label's apart. Without it, a
            softmax whose small entries share their mass evenly serves as well.
        weight: The published weight, where a study file says nothing.
    """

    name: str
    title: str
    source: str
    reads: tuple[Reads, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    build: Callable[[PairShapes, Mapping[str, Value]], Term]
    refuse: Callable[[PairShapes, Mapping[str, Value]], str]
    needs: Callable[[PairShapes, Mapping[str, Value]], Needs] = needs_logits
    couples_batch: bool = False
    student: Literal["", "simkd", "norm"] = ""
    dense: bool = False
    skips: bool = False
    all_classes: bool = True
    weight: float = 1.0

    def refusal(self, shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
        """Returns why it cannot serve this pair, or an empty string.

        Args:
            shapes: The pair.
            hyperparameters: Complete hyperparameters.
        """
        if self.dense != shapes.student.dense:
            task = "dense prediction" if self.dense else "classification"
            return f"{self.name} is for {task}, so networks must put out logits for that"
        return self.refuse(shapes, hyperparameters)

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


def read_numbers(value: Value) -> list[float]:
    """Returns the numbers of a hyperparameter with the pattern `NUMBERS`."""
    return [float(number) for number in str(value).split()]


def refuse_unequal_classes(shapes: PairShapes) -> str:
    """Returns why two sets of logits cannot be compared class by class, or an empty string."""
    student, teacher = shapes.student.classes, shapes.teacher.classes
    if student != teacher:
        return (
            "student and teacher must have the same number of classes, "
            f"but got {student} and {teacher}"
        )
    if student < 2:
        return f"logits must have at least 2 classes, but got {student}"
    return ""
