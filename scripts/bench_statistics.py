"""Checks the statistics on simulated studies whose truth is known, and prints Markdown tables.

    python scripts/bench_statistics.py [--studies 1000] [--effects 100]

Response surfaces over two hyperparameters: a peak (5 points down at the far corner of the grid), a
ridge, and flat (nothing has an effect). Noise: normal, 0.15 points for each trial and 0.25 points
that a seed does to all. A study is a 5 x 5 grid under 5 paired seeds. The measures of importance
are slow, so they are tried on fewer studies (--effects), of 40 random configurations of three
hyperparameters of which one or none matters.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping

import numpy as np

from kdscale.analysis.statistics import (
    MEASURES,
    Result,
    Results,
    at_equal_budget,
    best_value,
    compare_methods,
    configuration_estimates,
    differences,
    effects,
    noise_floor,
    plateau,
    race,
)

SIDE, SEEDS, SD, SEED_SD = 5, 5, 0.15, 0.25
CLAIMS = 20
"""Times as many flat studies: whether a rate is 5% or 6% takes thousands to tell."""
GRID = [(a, b) for a in np.linspace(0, 1, SIDE) for b in np.linspace(0, 1, SIDE)]
Surface = Callable[[float, float], float]
SURFACES: dict[str, Surface] = {
    "peak": lambda a, b: -4.0 * ((a - 0.55) ** 2 + 2.0 * (b - 0.3) ** 2),
    "ridge": lambda a, b: -3.0 * (a - b) ** 2 - 0.5 * abs(a - 0.6),
    "flat": lambda a, b: 0.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Check kdscale's statistics against known truth.")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--effects", type=int, default=100)
    options = parser.parse_args()
    start = time.perf_counter()
    print("| what | surface | wanted | seen | n |\n|---|---|---|---:|---:|")
    for row in rows(options.studies, options.effects):
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


def rows(studies: int, sampled_studies: int) -> Iterator[tuple[str, ...]]:
    if studies:
        yield from intervals(studies)
        yield from claims(CLAIMS * studies)
        yield from methods(studies)
        yield from searches(studies)
        yield from races(studies)
    if sampled_studies:
        yield from importances(sampled_studies)


def study(surface: Surface, rng: int) -> tuple[np.ndarray, Results]:
    """Returns the true means and one simulated study."""
    draw = np.random.default_rng([rng, [*SURFACES.values(), needle].index(surface)])
    means = 70.0 + np.array([surface(a, b) for a, b in GRID])
    values = means[:, None] + draw.normal(0, SEED_SD, SEEDS)
    values = values + draw.normal(0, SD, values.shape)
    rows = (
        Result(c, s, {"alpha": float(GRID[c][0]), "beta": float(GRID[c][1])}, float(values[c, s]))
        for c in range(len(GRID))
        for s in range(SEEDS)
    )
    return means, Results(tuple(rows), "maximize", ("alpha", "beta"))


def intervals(studies: int) -> Iterator[tuple[str, ...]]:
    within = math.hypot(SD, SEED_SD)
    for name, surface in SURFACES.items():
        held: dict[str, list[bool]] = {}
        luck: list[tuple[float, float, float]] = []
        for rng in range(studies):
            means, results = study(surface, rng)
            known = configuration_estimates(results)
            keep(
                held,
                "mean, t interval",
                (inside(one.t, means[one.configuration]) for one in known),
            )
            keep(
                held,
                "mean, bootstrap interval",
                (inside(one.bootstrap, means[one.configuration]) for one in known),
            )
            compared = differences(results, 0)
            keep(
                held,
                "difference to the baseline, interval",
                (
                    inside(
                        (one.difference.low, one.difference.high),
                        means[one.configuration] - means[0],
                    )
                    for one in compared
                ),
            )
            floor, best, members = noise_floor(results), best_value(results), plateau(results)
            assert floor is not None
            assert best is not None
            assert members is not None
            assert floor.residual is not None
            assert best.shrunk is not None
            keep(
                held,
                "noise floor, interval",
                [inside((floor.within.low, floor.within.high), within)],
            )
            keep(
                held,
                "residual noise, interval",
                [inside((floor.residual.low, floor.residual.high), SD)],
            )
            keep(
                held,
                "best value after the choice, interval",
                [inside((best.low, best.high), means[best.configuration])],
            )
            keep(
                held,
                "plateau holds a best one",
                [
                    bool(
                        {int(c) for c in np.flatnonzero(means == means.max())}
                        & set(members.members)
                    )
                ],
            )
            truth = means[best.configuration]
            luck.append((best.naive - truth, best.shrunk - truth, best.bootstrapped - truth))
        for what, hits in held.items():
            yield what, name, wanted(what), f"{100 * np.mean(hits):.1f}%", f"{len(hits):,}"
        naive, shrunk, boot = np.mean(luck, axis=0)
        text = f"{naive:+.3f}, {shrunk:+.3f}, {boot:+.3f}"
        yield "best value, bias: naive, shrunk, bootstrap (points)", name, "0", text, f"{studies:,}"


def claims(studies: int) -> Iterator[tuple[str, ...]]:
    """Yields how often studies in which nothing has an effect are said to show one."""
    differ, worse = [], []
    for rng in range(studies):
        _, results = study(SURFACES["flat"], rng)
        differ.append(any(one.distinguishable for one in differences(results, 0)))
        members = plateau(results)
        assert members is not None
        worse.append(bool(members.worse))
    for what, hits in (
        ("any difference to the baseline (Holm)", differ),
        ("any left out of the plateau (Tukey: exactly 5%)", worse),
    ):
        yield f"false claim: {what}", "flat", "≤ 5%", f"{100 * np.mean(hits):.1f}%", f"{studies:,}"


def wanted(what: str) -> str:
    return "≥ 95%" if what.startswith(("plateau", "best")) else "93–97%"


def keep(held: dict[str, list[bool]], what: str, hits: Iterator[bool] | list[bool]) -> None:
    held.setdefault(what, []).extend(hits)


def inside(interval: tuple[float | None, float | None] | None, truth: float) -> bool:
    if interval is None or interval[0] is None or interval[1] is None:
        return False
    return bool(interval[0] <= truth <= interval[1])


def methods(studies: int) -> Iterator[tuple[str, ...]]:
    """Yields what comparisons of three equal methods claim, and how their intervals cover."""
    claims, held, dominant = [], [], []
    for rng in range(studies):
        draw = np.random.default_rng(rng)
        shared = draw.normal(0, SEED_SD, 8)
        runs: dict[str, Mapping[Hashable, float]] = {
            m: dict(enumerate((shared + draw.normal(0, SD, 8)).tolist())) for m in "abc"
        }
        found = compare_methods(runs, "maximize", rng=rng)
        claims.append(any(one.p_adjusted <= 0.05 for one in found))
        held += [inside(one.bootstrap, 0.0) for one in found]
        dominant += [one.dominance is not None and one.dominance < 0.2 for one in found]
    n = f"{studies:,}"
    yield (
        "false claim: any of three equal methods",
        "8 seeds",
        "≤ 5%",
        f"{100 * np.mean(claims):.1f}%",
        n,
    )
    yield (
        "paired bootstrap of two methods",
        "8 seeds",
        "93–97%",
        f"{100 * np.mean(held):.1f}%",
        f"{len(held):,}",
    )
    yield (
        "false claim: stochastic order < 0.2",
        "8 seeds",
        "≤ 5%",
        f"{100 * np.mean(dominant):.1f}%",
        f"{len(dominant):,}",
    )


def searches(studies: int) -> Iterator[tuple[str, ...]]:
    """Yields how often one of two equal searches is told to be ahead, where its band ends."""
    for configurations, seeds in ((8, 3), (16, 1), (16, 5), (32, 1), (32, 3)):
        claims = []
        for rng in range(studies):
            draw = np.random.default_rng(rng)
            gap = at_equal_budget(*(search(draw, configurations, seeds) for _ in range(2)))
            assert gap is not None
            claims.append(gap.low[-1] > 0.0 or gap.high[-1] < 0.0)
        yield (
            "false claim: one of two equal searches at equal budget",
            f"{configurations} configurations x {seeds}",
            "≤ 5%",
            f"{100 * np.mean(claims):.1f}%",
            f"{studies:,}",
        )


def search(draw: np.random.Generator, configurations: int, seeds: int) -> Results:
    """Returns trials of random configurations, 1 point apart (standard deviation)."""
    means = draw.normal(70.0, 1.0, configurations)
    values = means[:, None] + draw.normal(0.0, SD, (configurations, seeds))
    rows = (
        Result(number, seed, {}, float(value)) for (number, seed), value in np.ndenumerate(values)
    )
    return Results(tuple(rows), "maximize")


def races(studies: int) -> Iterator[tuple[str, ...]]:
    for name, surface in (SURFACES | {"needle": needle}).items():
        spent, near, full_near, lost, lost_any = [], [], [], [], []
        for rng in range(studies):
            means, whole = study(surface, rng)
            best = int(means.argmax())
            stopped, leader, runs = raced(whole, tolerance=0.1)
            spent.append(runs / len(whole.rows))
            near.append(means[best] - means[leader] <= 0.1)
            full_near.append(means[best] - means[int(whole.layout.means.argmax())] <= 0.1)
            lost.append(best in stopped and not near[-1])
            stopped, leader, _ = raced(whole, tolerance=0.0)
            lost_any.append(best in stopped and bool(means[best] > means[leader]))
        n = f"{studies:,}"
        text = f"{100 * np.mean(spent):.1f}%"
        yield "race, tolerance 0.1: runs of those of grid x 5 seeds", name, "≤ 40%", text, n
        both = f"{100 * np.mean(near):.1f}%, {100 * np.mean(full_near):.1f}%"
        yield "within 0.1 points of the best: race, full grid", name, "equal", both, n
        both = f"{100 * np.mean(lost):.1f}%, {100 * np.mean(lost_any):.1f}%"
        yield "race loses the best to a worse one: tolerance 0.1, none", name, "≤ 5%", both, n


def needle(a: float, b: float) -> float:
    """Returns 0.25 in one cell and 0 elsewhere: the hardest surface for a race."""
    return 0.25 if (a, b) == (0.5, 0.25) else 0.0


def raced(whole: Results, *, tolerance: float) -> tuple[Collection[int], int, int]:
    """Returns the stopped configurations, the leader, and the runs of a race."""
    values = {(row.configuration, row.seed): row for row in whole.rows}
    numbers, seeds = tuple(range(len(GRID))), tuple(range(SEEDS))
    rows: list[Result] = []
    while True:
        step = race(Results(tuple(rows), "maximize"), numbers, seeds, tolerance=tolerance)
        if step.done:
            assert step.leader is not None
            return step.stopped, step.leader, len(rows)
        rows += [values[item] for item in step.run.items()]


def importances(studies: int) -> Iterator[tuple[str, ...]]:
    for measure in MEASURES:
        for slope in (0.0, 1.0):
            false: dict[str, list[bool]] = {}
            true: dict[str, list[bool]] = {}
            for rng in range(studies):
                found = effects(sampled(slope, rng), measure, rng=rng)
                for kind in dict.fromkeys(one.measure for one in found):
                    told = {
                        one.parameters for one in found if one.measure == kind and one.detectable
                    }
                    real = {("alpha",)} if slope else set()
                    false.setdefault(kind, []).append(bool(told - real))
                    true.setdefault(kind, []).append(("alpha",) in told)
            for kind, hits in false.items():
                name = "one matters" if slope else "flat"
                yield (
                    f"false claim: {kind}",
                    name,
                    "≤ 5%",
                    f"{100 * np.mean(hits):.1f}%",
                    f"{studies}",
                )
                if slope and not kind.endswith("_pair"):
                    seen = f"{100 * np.mean(true[kind]):.0f}%"
                    yield f"effect found: {kind}", name, "high", seen, f"{studies}"


def sampled(slope: float, rng: int) -> Results:
    draw = np.random.default_rng(rng)
    rows = []
    for number in range(40):
        alpha, beta, depth = draw.random(3).tolist()
        value = slope * alpha + float(draw.normal(0, 0.2))
        rows.append(Result(number, 0, {"alpha": alpha, "beta": beta, "depth": depth}, value))
    return Results(tuple(rows), "maximize", ("alpha", "beta", "depth"))


if __name__ == "__main__":
    main()
