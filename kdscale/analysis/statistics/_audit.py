"""What a published table supports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as f_distribution

from kdscale.analysis._estimate import CONFIDENCE, NOISE, Goal
from kdscale.analysis.statistics._audit_table import Curve, PublishedTable, curves_of
from kdscale.analysis.statistics._differences import holm
from kdscale.analysis.statistics._power import seeds_needed
from kdscale.analysis.statistics._results import Array

_DRAWS = 20_000
_FEWEST_NEIGHBOURS = 4


@dataclass(frozen=True)
class CurveAudit:
    """One curve of a published table.

    Attributes:
        curve: The cells.
        best: The cell that a paper prints in bold.
        best_score: Its score.
        excess: Best minus mean.
        noise_excess: Best minus mean of as many equal cells with noise of the curve's own spread.
        chance_best: Chance that the bold cell is truly the best one; None without a noise.
        gap: Best minus second best.
        seeds: Runs a cell, under paired seeds or not, that would tell the best from the second
            best with 80% power if they differ as printed; None without a noise or for no gap.
    """

    curve: Curve
    best: str
    best_score: float
    excess: float
    noise_excess: float
    chance_best: float | None
    gap: float
    seeds: int | None


@dataclass(frozen=True)
class Test:
    """One question to the table.

    Attributes:
        name: ``spread``, ``smoothness`` or ``noise``.
        statistic: What was seen.
        expected: What noise alone shows on average.
        p: Chance that noise alone shows as much.
        p_adjusted: After Holm's adjustment for the questions asked.
    """

    __test__ = False

    name: str
    statistic: float
    expected: float
    p: float
    p_adjusted: float


@dataclass(frozen=True)
class Audit:
    """What a published table supports.

    Attributes:
        tables: The tables.
        curves: Their curves.
        tests: The questions asked; together they claim an effect where there is none in 5% of
            tables at most.
        noise: Standard deviation of a single run, or None if nothing shows it.
        noise_source: Where it comes from: ``given``, ``std`` or ``neighbours``.
        verdict: What it supports, in words.
    """

    tables: tuple[PublishedTable, ...]
    curves: tuple[CurveAudit, ...]
    tests: tuple[Test, ...]
    noise: float | None
    noise_source: str
    verdict: str

    @property
    def supported(self) -> tuple[Test, ...]:
        """The tests that noise alone does not pass."""
        return tuple(test for test in self.tests if test.p_adjusted <= 1.0 - CONFIDENCE)


def audit(
    tables: Sequence[PublishedTable],
    *,
    goal: Goal = "maximize",
    noise: float | None = None,
    rng: int = 0,
) -> Audit:
    """Returns what published tables support, taken together.

    - spread: best minus mean, in the curve's own standard deviations, summed over the curves,
      against normal noise. It asks whether the best cells stand out, and needs no noise level.
    - smoothness: von Neumann's ratio (sum of squared differences of neighbours / sum of squares
      about the mean), summed over the curves, against shuffled order: an effect of a
      hyperparameter makes neighbours alike.
    - noise: spread of the cells against that of repeated runs, where ``std`` or ``noise`` say it.

    Curves that cross in a cell which was chosen as the best one (one at a time, around the best)
    make the spread look larger than noise does, not smaller.

    Args:
        tables: At least one.
        goal: Whether a larger score is the better one.
        noise: Standard deviation of a single run, if it is known from elsewhere.
        rng: Seed of the simulations.

    Source: von Neumann, Annals of Mathematical Statistics 12 (1941), the ratio; Rice, Annals of
    Statistics 12 (1984), noise from differences of neighbours where nothing else tells it; the
    chance of the best is a normal posterior with an empirical prior (Efron and Morris, JASA 68
    (1973)), so that of cells that differ by noise alone each has the same.
    """
    sign = 1.0 if goal == "maximize" else -1.0
    curves = [curve for table in tables for curve in curves_of(table)]
    level, source = _noise_level(tables, curves, noise)
    draw = np.random.default_rng(rng)
    asked = [
        test
        for test in (
            _spread_test([sign * _scores(curve) for curve in curves], draw),
            _smoothness_test([_scores(curve)[: curve.numbers] for curve in curves], draw),
            _noise_test(tables, noise),
        )
        if test is not None
    ]
    adjusted = holm([test.p for test in asked])
    tests = tuple(
        Test(test.name, test.statistic, test.expected, test.p, p)
        for test, p in zip(asked, adjusted, strict=True)
    )
    return Audit(
        tables=tuple(tables),
        curves=tuple(_curve_audit(curve, sign, level, draw) for curve in curves),
        tests=tests,
        noise=level,
        noise_source=source,
        verdict=_verdict(tests),
    )


_CLAIMS = {
    "spread": "the best cells stand out from the rest more than noise does",
    "smoothness": "neighbouring values score alike: the hyperparameter has an effect",
    "noise": "cells differ by more than repeated runs do",
}


def _verdict(tests: Sequence[Test]) -> str:
    claims = [_CLAIMS[test.name] for test in tests if test.p_adjusted <= 1.0 - CONFIDENCE]
    return "; ".join(claims) or NOISE


def _scores(curve: Curve) -> Array:
    return np.array([cell.score for cell in curve.cells])


def _curve_audit(
    curve: Curve, sign: float, noise: float | None, draw: np.random.Generator
) -> CurveAudit:
    scores = _scores(curve)
    order = np.argsort(-sign * scores, kind="stable")
    best, gap = int(order[0]), abs(float(scores[order[0]] - scores[order[1]]))
    k = len(scores)
    standard = draw.standard_normal((_DRAWS, k))
    chance = seeds = None
    if noise:
        chance = _chance_best(curve, sign, noise, standard)
        seeds = seeds_needed(round(gap, 9), noise * math.sqrt(2.0), alpha=0.05 / (k - 1))
    return CurveAudit(
        curve=curve,
        best=curve.values[best],
        best_score=float(scores[best]),
        excess=abs(float(scores[best] - scores.mean())),
        noise_excess=float(scores.std(ddof=1) * standard.max(axis=1).mean()),
        chance_best=chance,
        gap=gap,
        seeds=seeds,
    )


def _chance_best(curve: Curve, sign: float, noise: float, standard: Array) -> float:
    scores = sign * _scores(curve)
    variances = noise**2 / np.array([cell.n for cell in curve.cells])
    between = max(0.0, float(scores.var(ddof=1) - variances.mean()))
    if not between:
        return 1.0 / len(scores)
    kept = between / (between + variances)
    weights = 1.0 / (between + variances)
    centre = float((weights * scores).sum() / weights.sum())
    drawn = centre + kept * (scores - centre) + standard * np.sqrt(kept * variances)
    return float((drawn.argmax(axis=1) == int(np.argmax(scores))).mean())


def _spread_test(curves: Sequence[Array], draw: np.random.Generator) -> Test | None:
    varied = [scores for scores in curves if np.ptp(scores) > 0.0]
    if not varied:
        return None
    seen = sum(_studentised_excess(scores[None, :])[0] for scores in varied)
    simulated = np.zeros(_DRAWS)
    points = expected = 0.0
    for scores in varied:
        noise = draw.standard_normal((_DRAWS, len(scores)))
        simulated += _studentised_excess(noise)
        points += float(scores.max() - scores.mean())
        expected += float(scores.std(ddof=1) * noise.max(axis=1).mean())
    return Test("spread", points, expected, _share(simulated >= seen - 1e-9), 1.0)


def _studentised_excess(scores: Array) -> Array:
    return np.asarray((scores.max(axis=1) - scores.mean(axis=1)) / scores.std(axis=1, ddof=1))


def _smoothness_test(curves: Sequence[Array], draw: np.random.Generator) -> Test | None:
    varied = [s for s in curves if len(s) >= _FEWEST_NEIGHBOURS and np.ptp(s) > 0.0]
    if not varied:
        return None
    seen = sum(_roughness(scores[None, :])[0] for scores in varied)
    shuffled = np.zeros(_DRAWS)
    for scores in varied:
        shuffled += _roughness(draw.permuted(np.tile(scores, (_DRAWS, 1)), axis=1))
    p = _share(shuffled <= seen + 1e-9)
    return Test("smoothness", float(seen), float(shuffled.mean()), p, 1.0)


def _roughness(scores: Array) -> Array:
    about = scores - scores.mean(axis=1, keepdims=True)
    return np.asarray((np.diff(scores, axis=1) ** 2).sum(axis=1) / (about**2).sum(axis=1))


def _share(hits: np.ndarray) -> float:
    """Returns a Monte-Carlo p-value, never 0 (Davison and Hinkley (1997), eq. 4.11)."""
    return float((1 + hits.sum()) / (1 + len(hits)))


def _noise_level(
    tables: Sequence[PublishedTable], curves: Sequence[Curve], given: float | None
) -> tuple[float | None, str]:
    if given is not None:
        return given, "given"
    squares, df = _within(tables)
    if df:
        return math.sqrt(squares / df), "std"
    steps = [step for curve in curves for step in np.diff(_scores(curve)[: curve.numbers]).tolist()]
    if not steps:
        return None, ""
    runs = [cell.n for curve in curves for cell in curve.cells[: curve.numbers]]
    return math.sqrt(float(np.mean(np.square(steps))) / 2.0 * float(np.mean(runs))), "neighbours"


def _within(tables: Sequence[PublishedTable]) -> tuple[float, int]:
    """Returns sum of squares and degrees of freedom of repeated runs, from the column ``std``."""
    told = [
        (cell.std, cell.n - 1)
        for table in tables
        for cell in table.cells
        if cell.std is not None and cell.n > 1
    ]
    return math.fsum(std**2 * df for std, df in told), sum(df for _, df in told)


def _noise_test(tables: Sequence[PublishedTable], given: float | None) -> Test | None:
    """Returns the one-way analysis of variance from means and deviations, over all tables."""
    between, df = 0.0, 0
    for table in tables:
        runs = np.array([cell.n for cell in table.cells])
        scores = np.array([cell.score for cell in table.cells])
        centre = (runs * scores).sum() / runs.sum()
        between += float((runs * (scores - centre) ** 2).sum())
        df += len(scores) - 1
    squares, within_df = _within(tables)
    if given is not None and df:
        ratio, p = between / given**2 / df, float(chi2.sf(between / given**2, df))
    elif within_df and squares and df:
        ratio = between / df / (squares / within_df)
        p = float(f_distribution.sf(ratio, df, within_df))
    else:
        return None
    return Test("noise", ratio, 1.0, p, 1.0)
