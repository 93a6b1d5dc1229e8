"""Designs: the configurations of searches that learn from no result, as pure functions.

A configuration is a function of (search.seed, number) alone, so asking for more of them, in any
order and after any restart, changes none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import qmc

from kdscale.records import Value
from kdscale.search._axes import Axis
from kdscale.search._sections import SearchSpec

if TYPE_CHECKING:
    from kdscale.search._study import Study

DESIGNS = ("grid", "oat")
"""Search methods whose design fixes the number of configurations."""


def designed_configuration(study: Study, number: int) -> dict[str, Value]:
    """Returns a configuration of a grid, random, qmc or oat search.

    With a baseline that is configuration 0, and the others follow it.

    Args:
        study: The study.
        number: Number of the configuration, from 0.

    Returns:
        A value for each searched parameter; none where every parameter is fixed.

    Raises:
        IndexError: If a grid or oat design has no such number.
        ValueError: If the search learns from results, so that no design has its configurations.
    """
    search, axes = study.search, study.axes
    if not axes:
        return {}
    if search.method in DESIGNS:
        if not 0 <= number < design_size(search, axes):
            raise IndexError(f"the design has no configuration {number}")
        return (_grid if search.method == "grid" else _oat)(axes, baseline_of(search, axes), number)
    baseline = baseline_of(search, axes)
    if baseline is not None:
        if number == 0:
            return baseline
        number -= 1
    if search.method == "random":
        key = np.array([search.seed, number], dtype=np.uint64)
        uniforms = np.random.Generator(np.random.Philox(key=key)).random(len(axes))
    elif search.method == "qmc":
        sobol = qmc.Sobol(len(axes), scramble=True, rng=search.seed)
        if number:
            sobol.fast_forward(number)
        uniforms = sobol.random(1)[0]
    else:
        raise ValueError(f"{search.method} learns from results: ask Optuna")
    return {axis.name: axis.draw(float(u)) for axis, u in zip(axes, uniforms, strict=True)}


def design_size(search: SearchSpec, axes: Sequence[Axis]) -> int:
    """Returns how many configurations a grid or oat search has."""
    counts = [_count(axis) for axis in axes]
    return math.prod(counts) if search.method == "grid" else 1 + sum(counts) - len(counts)


def baseline_of(search: SearchSpec, axes: Sequence[Axis]) -> dict[str, Value] | None:
    """Returns the baseline in file order, its values in the hyperparameters' types, if given."""
    if search.baseline is None:
        return None
    return {axis.name: axis.cast(search.baseline[axis.name]) for axis in axes}


def _grid(
    axes: Sequence[Axis], baseline: Mapping[str, Value] | None, number: int
) -> dict[str, Value]:
    """Returns a point of the grid, the last parameter running fastest; the baseline comes first."""
    if baseline is not None:
        own = 0
        for axis in axes:
            own = own * _count(axis) + axis.index(baseline[axis.name])
        number = own if number == 0 else number - (number <= own)
    point: dict[str, Value] = {}
    for axis in reversed(axes):
        number, index = divmod(number, _count(axis))
        point[axis.name] = axis.value(index)
    return {axis.name: point[axis.name] for axis in axes}


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
