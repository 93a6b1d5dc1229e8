"""Successive halving within a cohort, as a pure function of its members' histories."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Halving:
    """A stop rule: after each rung the best 1/eta of a cohort goes on, one trial at least.

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


def _order(name: str) -> tuple[int, str]:
    """Returns the order of trials: c0999-s0 before c1000-s0."""
    return len(name), name
