"""Axes: each parameter joined to the hyperparameter that it searches, with its type and bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from annotated_types import Ge, Gt, Le
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from kdscale.losses import Hyperparameter
from kdscale.records import Value
from kdscale.search._parameters import Parameter
from kdscale.training import SEARCHABLE_RECIPE_FIELDS, ObjectiveSpec, RecipeSpec, spelled

COMPUTE = "budget.compute"
"""The parameter that multiplies a trial's seconds."""

_TOLERANCE = 1e-9  # in steps


@dataclass(frozen=True)
class Target:
    """A hyperparameter in its place: of a method, of the recipe, or the cross-entropy's weight.

    Or how many times ``budget.seconds`` a trial gets, which is compared like any of them.

    Attributes:
        owner: The method's label, ``recipe``, ``budget``, or empty for ``ce_weight``.
        hyperparameter: Its name, type and bounds.
    """

    owner: str
    hyperparameter: Hyperparameter

    @property
    def name(self) -> str:
        """Its full name: ``ldrld.alpha``, ``recipe.lr``, ``ce_weight``."""
        return f"{self.owner}.{self.hyperparameter.name}" if self.owner else "ce_weight"

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which a study file may call it; a recipe's and the budget's are full."""
        short = () if self.owner in ("", "recipe", "budget") else (self.hyperparameter.name,)
        return (self.name, *short)


def targets(objective: ObjectiveSpec) -> list[Target]:
    """Returns everything that a study with this objective can search."""
    found = [
        Target(method.label, hyperparameter)
        for method in objective.methods
        for hyperparameter in spelled(method.method)
    ]
    found.append(Target("", Hyperparameter("ce_weight", 1.0, "weight of the labels", low=0)))
    multiple = Hyperparameter("compute", 1.0, "times budget.seconds", low=0, low_open=True)
    found.append(Target("budget", multiple))
    return [*found, *(Target("recipe", _recipe_field(name)) for name in SEARCHABLE_RECIPE_FIELDS)]


def _recipe_field(name: str) -> Hyperparameter:
    field = RecipeSpec.model_fields[name]
    default = 1.0 if field.default is None else field.default
    low, high, low_open = None, None, False
    for bound in field.metadata:
        match bound:
            case Ge(ge=value) | Gt(gt=value):
                low, low_open = float(str(value)), isinstance(bound, Gt)
            case Le(le=value):
                high = float(str(value))
    return Hyperparameter(name, default, field.description or "", low, high, low_open)


def matching(name: str, objective: ObjectiveSpec) -> list[Target]:
    """Returns the targets that a parameter's name may mean: one, if the name is good."""
    found = targets(objective)
    exact = [target for target in found if target.name == name]
    return exact or [target for target in found if name in target.names]


@dataclass(frozen=True)
class Axis:
    """One searched parameter: the values that its hyperparameter may take.

    Attributes:
        name: The parameter's name in the study file.
        target: The hyperparameter that it sets.
        parameter: Its spelling in the study file.
    """

    name: str
    target: Target
    parameter: Parameter

    def cast(self, value: Value) -> Value:
        """Returns a value in the hyperparameter's own type: 9 of a float is 9.0."""
        return type(self.target.hyperparameter.default)(value)

    @property
    def step(self) -> float | None:
        """The step between values of a range, or None if it is continuous."""
        whole = isinstance(self.target.hyperparameter.default, int)
        default = 1 if whole or self.parameter.distribution == "int_uniform" else None
        return self.parameter.q or default

    @property
    def low(self) -> float:
        """The smallest value of a range."""
        assert self.parameter.min is not None
        return self.parameter.min

    @property
    def high(self) -> float:
        """The largest value of a range."""
        assert self.parameter.max is not None
        return self.parameter.max

    @property
    def count(self) -> int | None:
        """How many values there are, or None if they are continuous."""
        if self.parameter.values is not None:
            return len(self.parameter.values)
        if self.step is None:
            return None
        return round((self.high - self.low) / self.step) + 1

    def value(self, index: int) -> Value:
        """Returns the value of a number from 0 to count - 1."""
        if self.parameter.values is not None:
            return self.cast(self.parameter.values[index])
        # Decimal fractions, so that 0.1 + 2 * 0.1 is 0.3.
        exact = Decimal(str(self.low)) + index * Decimal(str(self.step))
        return self.cast(float(exact))

    def index(self, value: Value) -> int:
        """Returns the number of a value that the parameter can take."""
        if self.parameter.values is not None:
            return [self.cast(known) for known in self.parameter.values].index(self.cast(value))
        return self._nearest(float(value))

    def draw(self, uniform: float) -> Value:
        """Returns the value at a quantile of the parameter's distribution.

        Args:
            uniform: The quantile, from 0 to 1 without 1.
        """
        if self.count is not None and not self.parameter.logarithmic:
            return self.value(min(int(uniform * self.count), self.count - 1))
        if not self.parameter.logarithmic:
            drawn = self.low + uniform * (self.high - self.low)
        else:
            drawn = math.exp(
                math.log(self.low) + uniform * (math.log(self.high) - math.log(self.low))
            )
        drawn = min(max(drawn, self.low), self.high)
        return self.cast(drawn) if self.step is None else self.value(self._nearest(drawn))

    def contains(self, value: Value) -> bool:
        """Returns whether the parameter can take a value."""
        if self.target.hyperparameter.broken_rule(value):
            return False
        if self.parameter.values is not None:
            return self.cast(value) in [self.cast(known) for known in self.parameter.values]
        number = float(value)
        if self.step is None or self.count is None:
            return self.low <= number <= self.high
        index = self._nearest(number)
        off = abs(float(self.value(index)) - number)
        return 0 <= index < self.count and off <= _TOLERANCE * self.step

    def _nearest(self, number: float) -> int:
        assert self.step is not None
        return round((number - self.low) / self.step)

    def distribution(self) -> BaseDistribution:
        """Returns Optuna's distribution.

        Optuna has no logarithmic distribution with steps other than 1, 2, 3, ...; for such a
        parameter the distribution holds all values in between as well.
        """
        if self.parameter.values is not None:
            return CategoricalDistribution([self.cast(value) for value in self.parameter.values])
        log = self.parameter.logarithmic
        # Optuna wants the end of a stepped range as exact as its steps.
        high = self.high if self.count is None else float(self.value(self.count - 1))
        if isinstance(self.target.hyperparameter.default, int):
            step = 1 if log else int(self.step or 1)
            return IntDistribution(int(self.low), int(high), log=log, step=step)
        return FloatDistribution(self.low, high, log=log, step=None if log else self.step)

    @property
    def samplable(self) -> bool:
        """Whether Optuna's distribution holds the parameter's values and no others."""
        whole = isinstance(self.target.hyperparameter.default, int)
        return not self.parameter.logarithmic or self.step is None or (whole and self.step == 1)


def axes_of(parameters: Mapping[str, Parameter], objective: ObjectiveSpec) -> list[Axis]:
    """Returns the axis of each parameter with a name that means one hyperparameter."""
    found = ((name, matching(name, objective)) for name in parameters)
    return [Axis(name, hits[0], parameters[name]) for name, hits in found if len(hits) == 1]
