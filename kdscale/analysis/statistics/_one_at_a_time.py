"""Configurations that differ in one hyperparameter only: what a design was laid out to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._effects import ordered_values
from kdscale.analysis.statistics._results import Results
from kdscale.records import Value


@dataclass(frozen=True)
class OneAtATime:
    """Configurations along one hyperparameter, all others as in the baseline.

    Attributes:
        parameter: The hyperparameter.
        baseline: The configuration that the others differ from, itself among them.
        values: The hyperparameter's values, ascending.
        configurations: The configuration at each value.
    """

    parameter: str
    baseline: int
    values: tuple[Value, ...]
    configurations: tuple[int, ...]


def one_at_a_time(results: Results) -> tuple[OneAtATime, ...]:
    """Returns a line for each hyperparameter that some configurations alone differ in.

    The baseline is the configuration with the most others that differ from it in one
    hyperparameter: the baseline of a one-at-a-time design. In a grid, where all have as many, it
    is the one with the best mean. Random points give nothing.

    Args:
        results: The trials; only complete ones count.
    """
    layout = results.layout
    if not layout.configurations:
        return ()
    score = dict(
        zip(
            layout.configurations,
            (results.sign * additive_fit(layout).effects).tolist(),
            strict=True,
        )
    )
    points = {number: results.parameters[number] for number in layout.configurations}
    names = [name for name in results.names if all(name in point for point in points.values())]
    groups = {name: _groups(points, name) for name in names}

    def worth(number: int) -> tuple[int, float, int]:
        neighbours = sum(len(group[_others(points[number], n)]) - 1 for n, group in groups.items())
        return neighbours, round(score[number], 9), -number

    baseline = max(points, key=worth)
    lines = []
    for name, group in groups.items():
        line = {points[n][name]: n for n in group[_others(points[baseline], name)]}
        line[points[baseline][name]] = baseline
        if len(line) > 1:
            values = ordered_values(line)
            numbers = tuple(line[value] for value in values)
            lines.append(OneAtATime(name, baseline, values, numbers))
    return tuple(lines)


Key = frozenset[tuple[str, Value]]


def _others(point: Mapping[str, Value], name: str) -> Key:
    return frozenset((other, value) for other, value in point.items() if other != name)


def _groups(points: Mapping[int, Mapping[str, Value]], name: str) -> dict[Key, list[int]]:
    """Returns the configurations that are equal in all other hyperparameters, together."""
    found: dict[Key, list[int]] = {}
    for number, point in points.items():
        found.setdefault(_others(point, name), []).append(number)
    return found
