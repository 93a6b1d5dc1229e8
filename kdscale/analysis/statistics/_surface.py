"""What the scores look like along one hyperparameter, or two, with the others averaged out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdscale.analysis.statistics._effects import design, ordered_values
from kdscale.analysis.statistics._gp import Process, fit_process
from kdscale.analysis.statistics._results import Array, Results
from kdscale.records import Value

_POINTS = 25
_FEWEST = 8


@dataclass(frozen=True)
class Line:
    """The metric along one hyperparameter, the others averaged over the configurations.

    Attributes:
        parameter: The hyperparameter.
        values: Its values, ascending; numbers between those tried where there are many.
        mean: The process's mean at each.
        sd: Its standard deviation: of the surface, not of a single run.
    """

    parameter: str
    values: tuple[Value, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]


@dataclass(frozen=True)
class Surface:
    """The metric over two hyperparameters, the others averaged over the configurations.

    Attributes:
        first: The hyperparameter of the columns.
        second: That of the rows.
        columns: Values of the first, ascending.
        rows: Values of the second.
        mean: [rows, columns] The process's mean.
        sd: [rows, columns] Its standard deviation.
    """

    first: str
    second: str
    columns: tuple[Value, ...]
    rows: tuple[Value, ...]
    mean: Array
    sd: Array


class Surrogate:
    """A Gaussian process in the place of the study: what it would say at other points.

    Args:
        results: The trials; only complete ones count, each configuration once.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self.parameters, self._x, self._y = design(results)
        self.configurations = len(self._y)

    @property
    def known(self) -> bool:
        """Whether there is anything to fit: 8 configurations, and scores that differ."""
        few = self.configurations < max(_FEWEST, len(self.parameters) + 3)
        return bool(self.parameters) and not few and float(np.ptp(self._y)) > 0.0

    def line(self, parameter: str) -> Line:
        """Returns the metric along one hyperparameter."""
        values, places = self._axis(parameter)
        mean, sd = self._averaged((parameter,), places[:, None])
        return Line(parameter, values, tuple(mean.tolist()), tuple(sd.tolist()))

    def surface(self, first: str, second: str) -> Surface:
        """Returns the metric over two hyperparameters."""
        columns, across = self._axis(first)
        rows, along = self._axis(second)
        grid = np.array([(x, y) for y in along for x in across])
        mean, sd = self._averaged((first, second), grid)
        shape = (len(rows), len(columns))
        return Surface(first, second, columns, rows, mean.reshape(shape), sd.reshape(shape))

    @cached_property
    def _process(self) -> Process:
        return fit_process(self._x, self._y)

    def _averaged(self, parameters: tuple[str, ...], grid: Array) -> tuple[Array, Array]:
        columns = tuple(self.parameters.index(name) for name in parameters)
        mean, sd = self._process.averaged(columns, grid)
        return self._results.sign * mean, sd

    def _axis(self, parameter: str) -> tuple[tuple[Value, ...], Array]:
        """Returns values to draw at, and where they lie in the unit cube."""
        tried = [row.parameters[parameter] for row in self._results.complete.rows]
        return _axis(ordered_values(tried))


def _axis(values: Sequence[Value]) -> tuple[tuple[Value, ...], Array]:
    places = (np.arange(len(values)) + 0.5) / len(values)
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(values) <= _POINTS // 2:
        return tuple(values), places
    grid = np.linspace(places[0], places[-1], _POINTS)
    return tuple(np.interp(grid, places, numbers).tolist()), grid
