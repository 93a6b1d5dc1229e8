"""Simulated tables of results: a known mean for each configuration, known noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from kdscale.analysis.statistics import Result, Results


def table(values: Sequence[Sequence[float | None]], goal: str = "maximize") -> Results:
    """Returns results from rows of values by configuration; None is a missing trial."""
    return Results(
        tuple(
            Result(configuration, seed, {"alpha": float(configuration)}, value)
            for configuration, row in enumerate(values)
            for seed, value in enumerate(row)
            if value is not None
        ),
        goal,  # type: ignore[arg-type]
        ("alpha",),
    )


def simulated(
    means: Sequence[float], seeds: int, rng: int, *, seed_sd: float = 0.3, sd: float = 0.2
) -> Results:
    draw = np.random.default_rng(rng)
    values = np.asarray(means)[:, None] + draw.normal(0.0, seed_sd, seeds)
    return table((values + draw.normal(0.0, sd, values.shape)).tolist())


def mapped(results: Results, change: Callable[[Result], Result]) -> Results:
    return Results(tuple(change(row) for row in results.rows), results.goal, results.names)


@st.composite
def tables(draw: st.DrawFn) -> Results:
    """Draws tables with some trials missing."""
    configurations = draw(st.integers(2, 6))
    seeds = draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    values = rng.normal(70.0, 1.0, (configurations, seeds)).round(3)
    missing = rng.random((configurations, seeds)) < draw(st.sampled_from([0.0, 0.2]))
    missing[:, 0] = False
    rows = [
        [None if gone else float(value) for value, gone in zip(row, holes, strict=True)]
        for row, holes in zip(values, missing, strict=True)
    ]
    return table(rows)
