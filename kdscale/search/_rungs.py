"""Successive halving within a rung group, as a pure function of its members' histories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kdscale.records import TrialRecord
from kdscale.search._study import Study


@dataclass(frozen=True)
class Halving:
    """A stop rule: after each rung the best 1/eta of a group goes on, one trial at least.

    Asked again with longer histories, it repeats its earlier decisions: they are a function of
    the histories up to each rung, so a restart needs no memory of them.

    Attributes:
        epochs: The rungs, ascending.
        eta: Of n trials at a rung, the best ``max(1, n // eta)`` go on.
        metric: Name of the metric compared.
        goal: Direction of the metric.
    """

    epochs: tuple[int, ...]
    eta: int
    metric: str
    goal: Literal["maximize", "minimize"]

    def __call__(
        self, histories: Mapping[str, Sequence[Mapping[str, float]]], going: Collection[str]
    ) -> dict[str, str]:
        """Returns the trials to drop so far, each with the rung and its rank there.

        A trial that failed before a rung takes no part in it. A rung waits for every trial that
        is still in training.

        Args:
            histories: By trial, one row of metrics an epoch.
            going: Names of the trials in training.
        """
        dropped: dict[str, str] = {}
        for epoch in self.epochs:
            present = [name for name in sorted(histories, key=_order) if name not in dropped]
            if any(len(histories[name]) < epoch for name in present if name in going):
                break
            runners = [name for name in present if len(histories[name]) >= epoch]
            sign = -1.0 if self.goal == "maximize" else 1.0
            # Sorting is stable: of equals the lower configuration goes on.
            runners.sort(key=lambda name: sign * histories[name][epoch - 1][self.metric])
            keep = max(1, len(runners) // self.eta)
            for rank, name in enumerate(runners[keep:], start=keep + 1):
                dropped[name] = f"rung at epoch {epoch}: rank {rank} of {len(runners)}"
        return dropped


class RungGroup:
    """The trials that are compared at rungs, and how far they have come together.

    It may be made at any time from what is known of the trials: rungs that were decided before
    are decided again, in the same way.
    """

    def __init__(self, rule: Halving, trials: Iterable[TrialRecord]) -> None:
        """Starts at the first rung.

        Args:
            rule: The rule.
            trials: All trials of the group, ended or not.
        """
        self._rule = rule
        self._trials = {trial.name: trial for trial in trials}
        self._rung = 0
        self._short = self._short_of_rung()

    @property
    def limit(self) -> float:
        """The epoch up to which the group's trials may train: the first rung not decided yet."""
        rungs = self._rule.epochs
        return rungs[self._rung] if self._rung < len(rungs) else float("inf")

    @property
    def names(self) -> list[str]:
        """The group's trials."""
        return list(self._trials)

    def update(self, trial: TrialRecord) -> None:
        """Takes a trial that has changed."""
        self._trials[trial.name] = trial
        if trial.has_ended or len(trial.history) >= self.limit:
            self._short.discard(trial.name)

    def decide(self) -> dict[str, str]:
        """Returns the trials to drop now, with the reasons, if all have come to the next rung."""
        dropped: dict[str, str] = {}
        while self._rung < len(self._rule.epochs) and not self._short:
            histories = {name: trial.history for name, trial in self._trials.items()}
            going = {name for name, trial in self._trials.items() if not trial.has_ended}
            found = self._rule(histories, going - dropped.keys())
            dropped |= {name: why for name, why in found.items() if name in going}
            self._rung += 1
            self._short = self._short_of_rung() - dropped.keys()
        return dropped

    def _short_of_rung(self) -> set[str]:
        return {
            name
            for name, trial in self._trials.items()
            if not trial.has_ended and len(trial.history) < self.limit
        }


def rung_groups(study: Study, trials: Iterable[TrialRecord]) -> dict[str, RungGroup]:
    """Returns the rung groups of trials, by name; none in a study without rungs."""
    if study.rungs is None:
        return {}
    rule = Halving(study.rung_epochs, study.rungs.eta, study.metric.name, study.metric.goal)
    seeds = study.seed_list if study.tolerance is None else study.seed_list[:1]
    members: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.seed in seeds:  # those that are raced on are compared at their last epoch
            members[trial.group].append(trial)
    return {name: RungGroup(rule, own) for name, own in members.items()}


def _order(name: str) -> tuple[int, str]:
    """Returns the order of trials: c0999-s0 before c1000-s0."""
    return len(name), name
