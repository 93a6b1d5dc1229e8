"""An axis for one hyperparameter: numbers, numbers over orders of magnitude, or names."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from kdscale.analysis import _format as fmt
from kdscale.records import Value

_LOG_RATIO = 10.0
_TICK_DISTANCE = 0.05


class Axis:
    """Where values of a hyperparameter lie, and the axis that says so.

    Args:
        name: The hyperparameter.
        values: All values to be shown; at least one.
    """

    def __init__(self, name: str, values: Sequence[Value]) -> None:
        self._names = sorted({fmt.parameter(value) for value in values})
        self.numeric = all(_is_number(value) for value in values)
        numbers = sorted({float(value) for value in values}) if self.numeric else []
        self._log = self.numeric and _logarithmic(numbers)
        self.layout: dict[str, Any] = {"title": {"text": html.escape(name)}}
        if not self.numeric:
            texts = [html.escape(text) for text in self._names]
            self.layout |= {"tickvals": list(range(len(texts))), "ticktext": texts}
        elif self._log:
            self.layout |= _log_ticks(numbers[0], numbers[-1])
        else:
            self.layout |= _ticks(numbers)

    def at(self, value: Value) -> float:
        """Returns the place of a value on the axis."""
        if not self.numeric:
            return float(self._names.index(fmt.parameter(value)))
        return round(math.log10(float(value)), 6) if self._log else float(value)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _logarithmic(numbers: Sequence[float]) -> bool:
    """Returns whether the values lie more evenly on a logarithmic scale than on a linear one."""
    low, middle, high = numbers[0], numbers[len(numbers) // 2], numbers[-1]
    if low <= 0.0 or high / low <= _LOG_RATIO:
        return False
    place = math.log(middle / low) / math.log(high / low)
    return abs(place - 0.5) < abs((middle - low) / (high - low) - 0.5)


def _ticks(numbers: Sequence[float]) -> dict[str, Any]:
    """Returns ticks at the values themselves where they are few and lie apart."""
    apart = _TICK_DISTANCE * (numbers[-1] - numbers[0])
    if not all(high - low >= apart for low, high in pairwise(numbers)):
        return {}
    return {"tickvals": list(numbers), "ticktext": [fmt.parameter(number) for number in numbers]}


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 4 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return {
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:g}" for tick in ticks],
    }
