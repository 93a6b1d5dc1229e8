"""Designs: the configurations of searches that learn from no result, as pure functions.

A configuration is a function of (search.seed, number) alone, so asking for more of them, in any
order and after any restart, changes none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kdscale.records import Value
from kdscale.search._axes import Axis
from kdscale.search._sections import SearchSpec

if TYPE_CHECKING:
    from kdscale.search._study import Study

DESIGNS = ("grid", "factorial", "oat")
"""Search methods whose design fixes the number of configurations."""

SPACE_FILLING = ("random", "sobol", "lhs")
"""Search methods that learn from no result and give as many configurations as one asks for."""


def designed_configuration(study: Study, number: int) -> dict[str, Value]:
    """Returns a configuration of a search that learns from no result.

    With a baseline that is configuration 0, and the others follow it; so with ``search.first``.

    Args:
        study: The study.
        number: Number of the configuration, from 0.

    Returns:
        A value for each searched parameter; none where every parameter is fixed.

    Raises:
        IndexError: If a design of fixed size has no such number.
        ValueError: If the search learns from results, so that no design has its configurations.
    """
    search, axes = study.search, study.axes
    if not axes:
        return {}
    baseline = baseline_of(search, axes)
    if search.method in DESIGNS:
        if not 0 <= number < design_size(search, axes):
            raise IndexError(f"the design has no configuration {number}")
        if search.method == "oat":
            return _oat(axes, baseline, number)
        return _crossed(axes, _levels(search, axes), baseline, number)
    if baseline is not None:
        if number == 0:
            return baseline
        number -= 1
    if number < len(study.first):
        return study.first[number]
    number -= len(study.first)
    uniforms = _uniforms(search, len(axes), number, study.generation_size)
    return {axis.name: axis.draw(float(u)) for axis, u in zip(axes, uniforms, strict=True)}


def design_size(search: SearchSpec, axes: Sequence[Axis]) -> int:
    """Returns how many configurations a design of fixed size has, its baseline included."""
    levels = _levels(search, axes)
    if search.method == "oat":
        return 1 + sum(map(len, levels)) - len(levels)
    return math.prod(map(len, levels)) + _is_centre(baseline_of(search, axes), axes, levels)


def baseline_of(search: SearchSpec, axes: Sequence[Axis]) -> dict[str, Value] | None:
    """Returns the baseline in file order, its values in the hyperparameters' types, if given."""
    if search.baseline is None:
        return None
    return {axis.name: axis.cast(search.baseline[axis.name]) for axis in axes}


def _uniforms(
    search: SearchSpec, dimensions: int, number: int, generation: int
) -> npt.NDArray[np.float64]:
    """Returns a point of the unit cube ``[dimensions]``.

    A Latin hypercube has a size from the start. So that a study can grow, each generation is one.
    """
    if search.method == "random":
        key = np.array([search.seed, number], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).random(dimensions)
    from scipy.stats import qmc  # half a second or more

    match search.method:
        case "sobol":
            sobol = qmc.Sobol(dimensions, scramble=True, rng=search.seed)
            if number:
                sobol.fast_forward(number)
            points: npt.NDArray[np.float64] = sobol.random(1)
            return points[0, :]
        case "lhs":
            block, place = divmod(number, generation)
            rng = np.random.default_rng([search.seed, block])
            points = qmc.LatinHypercube(dimensions, rng=rng).random(generation)
            return points[place, :]
        case learns:
            raise ValueError(f"{learns} learns from results: ask Optuna")


def _levels(search: SearchSpec, axes: Sequence[Axis]) -> list[list[Value]]:
    """Returns the values of each parameter that the design joins: of a factorial range, its ends.

    The listed values of a parameter are all levels, in a factorial design too.
    """
    ends = search.method == "factorial"
    return [
        [axis.cast(axis.low), axis.cast(axis.high)]
        if ends and axis.parameter.values is None
        else [axis.value(index) for index in range(_count(axis))]
        for axis in axes
    ]


def _is_centre(
    baseline: Mapping[str, Value] | None, axes: Sequence[Axis], levels: Sequence[Sequence[Value]]
) -> bool:
    """Returns whether there is a baseline that is no crossing of the levels."""
    return baseline is not None and not all(
        baseline[axis.name] in values for axis, values in zip(axes, levels, strict=True)
    )


def _crossed(
    axes: Sequence[Axis],
    levels: Sequence[Sequence[Value]],
    baseline: Mapping[str, Value] | None,
    number: int,
) -> dict[str, Value]:
    """Returns a crossing of levels, the last parameter's fastest; the baseline comes first."""
    if baseline is not None:
        if number == 0:
            return dict(baseline)
        own = math.prod(map(len, levels))
        if not _is_centre(baseline, axes, levels):
            own = 0
            for axis, values in zip(axes, levels, strict=True):
                own = own * len(values) + values.index(baseline[axis.name])
        number -= number <= own
    point: list[Value] = []
    for values in reversed(levels):
        number, index = divmod(number, len(values))
        point.append(values[index])
    return {axis.name: value for axis, value in zip(axes, reversed(point), strict=True)}


def _oat(
    axes: Sequence[Axis], baseline: Mapping[str, Value] | None, number: int
) -> dict[str, Value]:
    """Returns the baseline, or the baseline with one parameter moved, parameter by parameter."""
    assert baseline is not None, "the study's rules want one"
    point = dict(baseline)
    number -= 1
    for axis in axes if number >= 0 else ():
        moves = _count(axis) - 1
        if number < moves:
            index = number + (number >= axis.index(baseline[axis.name]))
            return point | {axis.name: axis.value(index)}
        number -= moves
    return point


def _count(axis: Axis) -> int:
    assert axis.count is not None, "the study's rules want values or steps"
    return axis.count
