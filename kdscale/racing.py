"""Racing of seeds: which configurations get another seed, and which are surely no better.

Pure functions of what trials have scored; search decides by them, and analysis tries them out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdscale.outliers import far_below

ERROR_RATE = 0.05
"""Chance, at most, that something was stopped that is better than what stopped it."""

PILOTS = 8
"""Configurations that show the noise under a second seed before anything is stopped."""

Array = NDArray[np.float64]

Outcome = float | Literal["lost", "out"]
"""How a trial ended: its score, the higher the better; ``lost`` if it failed, which says nothing of
its configuration; ``out`` if it says that its configuration is not the best."""

Outcomes = Mapping[tuple[int, int], Outcome]
"""(configuration, seed) -> how that trial ended."""


@dataclass(frozen=True)
class Stop:
    """Why a configuration gets no further seed.

    Attributes:
        after: Seeds that it had.
        rival: The configuration than which it is surely no better; None where its own trial under
            the last of these seeds has put it out.
    """

    after: int
    rival: int | None


@dataclass(frozen=True)
class Race:
    """How a race stands.

    Attributes:
        run: Configuration -> the seed under which it is to be trained now; empty at the end.
        stopped: The configurations that get no further seed.
        leader: The configuration that is ahead; None before the first score.
    """

    run: Mapping[int, int]
    stopped: Mapping[int, Stop]
    leader: int | None

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return not self.run


@dataclass(frozen=True)
class Fit:
    """Least squares of score = configuration + seed, cells may be missing.

    Attributes:
        effects: [configurations] Each one's mean with what its seeds do to all taken out.
        variance: Of a single trial, what configuration and seed leave.
        df: Its degrees of freedom; without any the variance is 0.
        share: [configurations, seeds] Part of a configuration's trials under each seed.
        counts: [configurations] Trials of each.
        seed_covariance: [seeds, seeds] Covariance of the seeds' effects in units of the variance.
    """

    effects: Array
    variance: float
    df: int
    share: Array
    counts: NDArray[np.int64]
    seed_covariance: Array

    def difference_variance(self, row: int) -> Array:
        """Returns the variance of each effect minus that of a row, in units of the variance."""
        apart = self.share - self.share[row]
        shared = np.einsum("ij,jk,ik->i", apart, self.seed_covariance, apart)
        own = 1.0 / np.maximum(self.counts, 1)
        return np.asarray(own + own[row] + shared)


def fit(scores: Array) -> Fit:
    """Returns the fit of a table ``[configurations, seeds]``, NaN where there is no trial.

    Source: Searle, Linear Models for Unbalanced Data (1987), ch. 4: the normal equations with the
    configurations absorbed.
    """
    there = ~np.isnan(scores)
    counts = there.sum(axis=1)
    seen = there.astype(float)
    filled = np.where(there, scores, 0.0)
    centre = filled.sum() / max(1, int(counts.sum()))
    filled = np.where(there, filled - centre, 0.0)
    share = seen / np.maximum(counts, 1)[:, None]
    information = np.diag(seen.sum(axis=0)) - seen.T @ share
    covariance = np.linalg.pinv(information, hermitian=True)
    seeds = covariance @ (filled.sum(axis=0) - share.T @ filled.sum(axis=1))
    effects = (filled.sum(axis=1) - seen @ seeds) / np.maximum(counts, 1)
    residuals = np.where(there, filled - effects[:, None] - seeds, 0.0)
    rank = int((counts > 0).sum()) + int(np.linalg.matrix_rank(information, hermitian=True))
    df = int(counts.sum()) - rank
    rounding = 1e-20 * counts.sum() * (1.0 + centre * centre)  # a sum of squares below it is none
    squares = float((residuals**2).sum())
    return Fit(
        effects=centre + effects,
        variance=squares / df if df > 0 and squares > rounding else 0.0,
        df=df,
        share=share,
        counts=counts,
        seed_covariance=covariance,
    )


def fit_alike(scores: Array) -> Fit:
    """Returns the fit of a table in which those that are far worse than the rest say nothing.

    Collapsed trainings have a noise of their own, which would hide all differences between the
    others. They keep their effects and counts, and are judged by the others' noise.

    Args:
        scores: [configurations, seeds] The higher the better; NaN where there is no trial.
    """
    whole = fit(scores)
    far = far_below(scores, whole.effects)
    if not far.any():
        return whole
    alike = fit(np.where(far[:, None], np.nan, scores))
    effects = np.where(far, whole.effects, alike.effects)
    return replace(alike, effects=effects, counts=whole.counts)


def race(
    outcomes: Outcomes,
    configurations: Collection[int],
    seeds: Sequence[int],
    *,
    settled: Collection[int] = (),
    error_rate: float = ERROR_RATE,
    tolerance: float = 0.0,
) -> Race:
    """Returns how a race between configurations stands, seed by seed.

    All run under the first seed, and the 8 best of these under the second, which shows the noise.
    From then on those that are furthest behind the leader are stopped, and the others get their
    next seed, fewest seeds first, until all have all or one is left. The winner gets all seeds.

    A configuration has a chance to be better than the leader by more than the tolerance: that of a
    t distribution about what was seen, from paired seeds, with the noise of all configurations but
    those that are far worse than the rest (`kdscale.outliers`).
    The least of these chances are spent first, and all that are spent add up to `error_rate` at
    most; a part (seeds so far) / (all seeds but the last) of it is there to be spent. So what is
    far behind costs next to nothing, and the rest of the error rate goes to those that are near. In
    simulations the winner was within the tolerance of the best about as often as the best mean of
    all configurations under all seeds (`scripts/bench_statistics.py`).

    A race is decided step by step, each when all trials of the one before have ended. So it is a
    function of the outcomes alone: not of their order, nor of what else is known by then.

    Args:
        outcomes: How trials have ended. Those that the race has not asked for yet count for
            nothing until it does.
        configurations: All that were entered.
        seeds: All seeds, in the order in which they are used.
        settled: Configurations of earlier races: rivals of these, but they get no seed.
        error_rate: What the chances of all that are stopped add up to, at most.
        tolerance: By how much worse than the best the winner may be.

    Source: Maron and Moore, NeurIPS 1993, races; Birattari et al., GECCO 2002, F-Race, blocked by
    instance (here: seed); Hutter, Hoos and Leyton-Brown, LION 2011, seeds one by one in
    intensification; Kim and Nelson, ACM TOMACS 11 (2001), the tolerance (indifference zone); Chen,
    Lin, Yucesan and Chick, Discrete Event Dynamic Systems 10 (2000), the sum of posterior chances
    as a bound on that of a wrong choice; Lan and DeMets, Biometrika 70 (1983), error spending.
    """
    state = _State(outcomes, sorted({*configurations, *settled}), tuple(seeds), frozenset(settled))
    while True:
        step = state.step()
        if not step:
            if state.over:
                break
            state.stop(error_rate, tolerance)
            step = state.next_seeds()
        missing = {number: seed for number, seed in step.items() if (number, seed) not in outcomes}
        if missing:
            return Race(missing, state.stopped, state.leader)
        for number, seed in step.items():
            state.take(number, seed)
    return Race({}, state.stopped, state.leader)


class _State:
    """A race on its way through the steps."""

    def __init__(
        self,
        outcomes: Outcomes,
        numbers: Sequence[int],
        seeds: tuple[int, ...],
        settled: frozenset[int],
    ) -> None:
        self.outcomes = outcomes
        self.numbers = numbers
        self.seeds = seeds
        self.stopped: dict[int, Stop] = {}
        self.over = False
        self._had = dict.fromkeys(numbers, 0)
        self._row = {number: row for row, number in enumerate(numbers)}
        self._scores = np.full((len(numbers), len(seeds)), np.nan)
        self._racing = [number for number in numbers if number not in settled]
        self._spent = 0.0
        self._piloted = False
        for number in settled:
            for seed in seeds:
                self._score(number, seed)
        self._fit = fit_alike(self._scores)

    @property
    def leader(self) -> int | None:
        """The best effect of those with as many scores as any that races; of equals the first."""
        counts, effects = self._fit.counts, self._fit.effects
        rows = [row for number, row in self._row.items() if number not in self.stopped]
        racing = [self._row[number] for number in self._racing] or rows
        most = max((int(counts[row]) for row in racing), default=0)
        ahead = [row for row in rows if counts[row] >= max(1, most)]
        if not ahead:
            return None
        return self.numbers[max(ahead, key=lambda row: (round(float(effects[row]), 9), -row))]

    def take(self, number: int, seed: int) -> None:
        """Takes how a trial ended that was asked for."""
        self._had[number] += 1
        self._score(number, seed)
        if self.outcomes[number, seed] == "out":
            self._stop(number, None)

    def step(self) -> dict[int, int]:
        """Returns the first seed for all, then the pilots' second one; then nothing."""
        first = {number: self.seeds[0] for number in self._racing if not self._had[number]}
        if first:
            return first
        self._fit = fit_alike(self._scores)
        if self._piloted or len(self.seeds) < 2:
            return {}
        self._piloted = True
        if self._fit.df >= PILOTS - 1:  # earlier races have shown the noise
            return {}
        known = [n for n in self._racing if self._fit.counts[self._row[n]]]
        known.sort(key=lambda number: (-self._fit.effects[self._row[number]], number))
        return dict.fromkeys(sorted(known[:PILOTS]), self.seeds[1])

    def stop(self, error_rate: float, tolerance: float) -> None:
        """Stops those that are surely no better than the leader, as far as the error rate goes."""
        from scipy.special import stdtr  # every worker would wait for it, and no worker races

        leader, known = self.leader, self._fit
        fewest = min((self._had[number] for number in self._racing), default=len(self.seeds))
        if leader is None or fewest == len(self.seeds) or known.variance == 0.0:
            return
        top = self._row[leader]
        error = np.sqrt(known.variance * np.maximum(known.difference_variance(top), 1e-12))
        chances = stdtr(known.df, (known.effects - known.effects[top] - tolerance) / error)
        behind = [n for n in self._racing if n != leader and known.counts[self._row[n]]]
        allowed = error_rate * fewest / (len(self.seeds) - 1)
        for number in sorted(behind, key=lambda number: (chances[self._row[number]], number)):
            chance = float(chances[self._row[number]])
            if self._spent + chance > allowed:
                break
            self._spent += chance
            self._stop(number, leader)

    def next_seeds(self) -> dict[int, int]:
        """Returns the next seed for those with the fewest; at the end, the winner's other seeds."""
        leader = self.leader
        fewest = min((self._had[number] for number in self._racing), default=len(self.seeds))
        if fewest == len(self.seeds):
            self.over = True
            return {}
        if leader is not None and self._racing == [leader]:
            return {leader: self.seeds[fewest]}
        return {n: self.seeds[fewest] for n in self._racing if self._had[n] == fewest}

    def _score(self, number: int, seed: int) -> None:
        outcome = self.outcomes.get((number, seed), "lost")
        if not isinstance(outcome, str):
            self._scores[self._row[number], self.seeds.index(seed)] = outcome

    def _stop(self, number: int, rival: int | None) -> None:
        self._racing.remove(number)
        self.stopped[number] = Stop(self._had[number], rival)


def fair_means(scores: Mapping[tuple[int, int], float]) -> dict[int, float]:
    """Returns each configuration's mean with what its seeds do to all configurations taken out.

    Means over unlike seeds can be set side by side so: a race gives some more seeds than others.

    Args:
        scores: (configuration, seed) -> score.
    """
    rows = {number: row for row, number in enumerate(sorted({number for number, _ in scores}))}
    columns = {seed: column for column, seed in enumerate(sorted({seed for _, seed in scores}))}
    table = np.full((len(rows), len(columns)), np.nan)
    for (number, seed), score in scores.items():
        table[rows[number], columns[seed]] = score
    effects = fit(table).effects
    return {number: float(effects[row]) for number, row in rows.items()}
