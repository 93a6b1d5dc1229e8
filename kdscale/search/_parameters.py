"""Parameters: how a study file spells what is searched, and the values that they may take."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from kdscale.records import Value
from kdscale.training import Spec, rule_error

Distribution = Literal[
    "uniform",
    "log_uniform_values",
    "q_uniform",
    "q_log_uniform_values",
    "int_uniform",
    "categorical",
    "constant",
]
_LOGARITHMIC = ("log_uniform_values", "q_log_uniform_values")
_STEPPED = ("q_uniform", "q_log_uniform_values")
_EXPONENTS = ("log_uniform", "q_log_uniform", "inv_log_uniform")
_BELLS = ("normal", "q_normal", "log_normal", "q_log_normal", "beta", "q_beta")
_TOLERANCE = 1e-9
"""In steps: decimal fractions are not exact in binary."""


class Parameter(Spec):
    """The values that a hyperparameter may take, spelled as in W&B Sweeps."""

    min: int | float | None = None
    """Smallest value, itself allowed."""

    max: int | float | None = None
    """Largest value, itself allowed."""

    values: tuple[Value, ...] | None = Field(None, min_length=1)
    """Values to choose from, without an order."""

    value: Value | None = None
    """The one value: a hyperparameter that is fixed rather than searched."""

    q: int | float | None = Field(None, gt=0)
    """Step: the values are min, min + q, ... up to max."""

    distribution: Distribution | None = None
    """How values are drawn; default: uniform. ``min`` and ``max`` are always the values
    themselves, also of log_uniform_values."""

    @field_validator("values")
    @classmethod
    def _values_are_unique(cls, values: tuple[Value, ...] | None) -> tuple[Value, ...] | None:
        for index, value in enumerate(values or ()):
            if values and value in values[:index]:
                raise rule_error("must be listed only once", hint="remove it", at=(index,))
        return values

    @field_validator("distribution", mode="before")
    @classmethod
    def _distribution_is_ours(cls, name: object, info: ValidationInfo) -> object:
        if name in _EXPONENTS:
            raise rule_error(
                "must not take bounds that are exponents, as W&B's log_uniform does",
                hint=_spelled_in_values(str(name), info.data.get("min"), info.data.get("max")),
            )
        if name in _BELLS:
            hint = "write min and max around the mean with distribution: uniform"
            raise rule_error("must have bounds, so that each method can search it", hint=hint)
        return name

    @model_validator(mode="after")
    def _spelling_is_one_of_three(self) -> Self:
        ranged = self.min is not None or self.max is not None
        if [self.value is not None, self.values is not None, ranged].count(True) != 1:
            raise rule_error("must have either min and max, or values, or value")
        kind = "constant" if self.value is not None else "categorical" if self.values else ""
        if self.distribution and kind and self.distribution != kind:
            at = "value" if self.value is not None else "values"
            hint = f"remove distribution, or write min and max instead of {at}"
            raise rule_error(f"must be {kind} with {at}", hint=hint, at=("distribution",))
        if not kind and self.distribution in ("constant", "categorical"):
            rule = "must be one for min and max"
            hint = "remove distribution, or list the values"
            raise rule_error(rule, hint=hint, at=("distribution",))
        if kind and self.q is not None:
            rule = "must be given only with min and max"
            raise rule_error(rule, hint="remove it", at=("q",))
        return self

    @model_validator(mode="after")
    def _range_is_sound(self) -> Self:
        if self.min is None and self.max is None:
            return self
        if self.min is None or self.max is None:
            there, absent = ("max", "min") if self.min is None else ("min", "max")
            raise rule_error(f"must have {absent} as well", hint=f"add {absent}", at=(there,))
        if self.min >= self.max:
            hint = f"write value: {self.min}" if self.min == self.max else "swap min and max"
            raise rule_error(f"must be < max ({self.max})", hint=hint, at=("min",))
        if self.logarithmic and self.min <= 0:
            rule = f"must be > 0 with distribution: {self.distribution}"
            raise rule_error(rule, hint=f"for example min: {self.max / 1000:g}", at=("min",))
        if self.distribution in _STEPPED and self.q is None:
            raise rule_error("must come with a step q", hint="add q", at=("distribution",))
        if self.distribution == "int_uniform":
            for name, bound in (("min", self.min), ("max", self.max), ("q", self.q)):
                if bound is not None and bound != int(bound):
                    raise rule_error("must be whole with int_uniform", at=(name,))
        if self.q is not None:
            steps = math.floor((self.max - self.min) / self.q + _TOLERANCE)
            last = self.min + steps * self.q
            if abs(last - self.max) > _TOLERANCE * self.q:
                hint = f"write max: {last:g} or {last + self.q:g}"
                raise rule_error("must be min + a whole number of steps q", hint=hint, at=("max",))
        return self

    @property
    def logarithmic(self) -> bool:
        """Whether values are drawn evenly in their logarithm."""
        return self.distribution in _LOGARITHMIC


def _spelled_in_values(name: str, low: float | None, high: float | None) -> str:
    """Returns the right spelling of a W&B distribution whose bounds are exponents."""
    target = "q_log_uniform_values" if name.startswith("q_") else "log_uniform_values"
    text = f"bounds of {name} are exponents; write distribution: {target}"
    if low is None or high is None:
        return text
    if low <= 0:  # no bound of a logarithmic distribution, so it must be meant as an exponent
        low, high = math.exp(min(low, 700)), math.exp(min(high, 700))
    return f"{text} with min: {low:.4g}, max: {high:.4g}"
