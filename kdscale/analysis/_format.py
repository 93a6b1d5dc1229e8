"""Numbers and names as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kdscale.analysis._estimate import Estimate
from kdscale.records import Value

NOTHING = "–"
"""Stands for a value that is not there."""

_REASONS_SHOWN = 3
_MINUS = "\N{MINUS SIGN}"
_MODES = {"last": "after the last epoch", "best": "at its best epoch"}


class MetricFormat:
    """How values of one metric are written: percentages with two decimals, others with four."""

    def __init__(self, metric: str) -> None:
        self.name = metric
        self.percent = "accuracy" in metric
        self.decimals = 2 if self.percent else 4

    @property
    def words(self) -> str:
        """The metric in words: ``validation accuracy`` for ``val_accuracy``."""
        words = self.name.replace("_", " ")
        for short, long in (("val ", "validation "), ("train ", "training ")):
            if words.startswith(short):
                return long + words.removeprefix(short)
        return words

    def number(self, value: float | None) -> str:
        """``74.31``, or a dash."""
        if value is None or not math.isfinite(value):
            return NOTHING
        return f"{value:.{self.decimals}f}".replace("-", _MINUS)

    def value(self, value: float) -> str:
        """``74.31%``."""
        return self.number(value) + ("%" if self.percent else "")

    def estimate(self, estimate: Estimate) -> str:
        """``74.31% (95% interval 73.12 to 75.50, n = 3)``."""
        known = f"95% interval {self.interval(estimate)}, " if estimate.low is not None else ""
        return f"{self.value(estimate.mean)} ({known}n = {estimate.n})"

    def signed(self, value: float) -> str:
        """``+1.75``."""
        return f"{value:+.{self.decimals}f}".replace("-", _MINUS)

    def interval(self, estimate: Estimate | None) -> str:
        """``73.12 to 75.50``, or a dash."""
        if estimate is None or estimate.low is None or estimate.high is None:
            return NOTHING
        return f"{self.number(estimate.low)} to {self.number(estimate.high)}"

    def signed_interval(self, estimate: Estimate) -> str:
        """``−0.31 to +1.75``, or a dash."""
        if estimate.low is None or estimate.high is None:
            return NOTHING
        return f"{self.signed(estimate.low)} to {self.signed(estimate.high)}"

    def known(self, estimate: Estimate) -> str:
        """``95% interval 73.12 to 75.50, n = 3``, or why there is no interval."""
        if estimate.low is not None:
            return f"95% interval {self.interval(estimate)}, n = {estimate.n}"
        if estimate.n == 1:
            return "n = 1: no interval"
        return f"n = {estimate.n}, all equal: no interval"

    def distance(self, value: float) -> str:
        """``1.75 points`` without a sign; without the unit where the metric is no percentage."""
        return self.number(abs(value)) + (" points" if self.percent else "")


def mode_words(mode: str) -> str:
    """Returns how a trial's value comes from its history, in words."""
    return _MODES.get(mode, mode.replace("_", " "))


def parameter(value: Value | None) -> str:
    """Returns a hyperparameter's value with at most four significant digits."""
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", _MINUS)
    return str(value)


def parameters(values: Mapping[str, Value]) -> str:
    """Returns ``alpha = 9, beta = 1.2``, or a dash for none."""
    pairs = (f"{name} = {parameter(value)}" for name, value in values.items())
    return ", ".join(pairs) or NOTHING


def seconds(value: float) -> str:
    """Returns a duration: ``8.2 s``, ``3 min 34 s``, ``2 h 05 min``."""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int, singular: str, plural: str = "") -> str:
    """Returns ``1 trial``, ``1,000 trials``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def listed(items: Sequence[str]) -> str:
    """Returns ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def reasons(counted: Sequence[tuple[str, int]]) -> str:
    """Returns ``node lost (×2); worker crash``, the three most frequent; empty for none."""
    shown = [f"{reason} (×{number})" if number > 1 else reason for reason, number in counted]
    others = ["and other reasons"] if len(shown) > _REASONS_SHOWN else []
    return "; ".join([*shown[:_REASONS_SHOWN], *others])


def seeds(numbers: Sequence[int]) -> str:
    """Returns ``0, 1``, or a dash for none."""
    return ", ".join(str(number) for number in numbers) or NOTHING
