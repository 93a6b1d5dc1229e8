"""A race of seeds over a table of results."""

from __future__ import annotations

from kdscale.analysis.statistics._results import Results
from kdscale.racing import ERROR_RATE, Race
from kdscale.racing import race as next_step


def race(
    results: Results,
    configurations: tuple[int, ...],
    seeds: tuple[int, ...],
    *,
    error_rate: float = ERROR_RATE,
    tolerance: float = 0.0,
) -> Race:
    """Returns the next step of a race between configurations, seed by seed: `kdscale.racing`.

    Args:
        results: The trials so far; one that a rung stopped puts its configuration out.
        configurations: All that were entered.
        seeds: All seeds, in the order in which they are used.
        error_rate: What the chances that a stopped one is better add up to, at most.
        tolerance: By how much worse than the best the winner may be.
    """
    return next_step(
        {
            (row.configuration, row.seed): results.sign * row.value if row.complete else "out"
            for row in results.rows
        },
        configurations,
        seeds,
        error_rate=error_rate,
        tolerance=tolerance,
    )
