"""The table that every statistic starts from: one row a trial, immutable, in one order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kdscale.analysis._estimate import Goal
from kdscale.records import StudyRecord, Value

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """One configuration under one seed, with what it scored and cost.

    Attributes:
        configuration: Number of the configuration.
        seed: Seed of the trial; trials with one seed are paired.
        parameters: Hyperparameters and their values.
        value: The study's metric.
        curve: The metric epoch by epoch; may be empty.
        cost_seconds: Seconds of training.
        complete: Whether it trained to the last epoch; a trial that a rung stopped did not.
    """

    configuration: int
    seed: int
    parameters: Mapping[str, Value]
    value: float
    curve: tuple[float, ...] = ()
    cost_seconds: float = 0.0
    complete: bool = True


@dataclass(frozen=True)
class Results:
    """Trials as a table. Rows lie in order of (configuration, seed), however they are given.

    Attributes:
        rows: One a trial.
        goal: Whether a larger value is the better one.
        names: The hyperparameters in the study's order.
    """

    rows: tuple[Result, ...]
    goal: Goal
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = sorted(self.rows, key=lambda row: (row.configuration, row.seed))
        object.__setattr__(self, "rows", tuple(rows))
        for before, after in pairwise(rows):
            if (before.configuration, before.seed) == (after.configuration, after.seed):
                raise ValueError(
                    "a configuration must have each seed once, but configuration "
                    f"{after.configuration} has seed {after.seed} twice"
                )
        for row in rows:
            if not math.isfinite(row.value):
                raise ValueError(
                    f"values must be finite, but configuration {row.configuration} under seed "
                    f"{row.seed} has {row.value}"
                )

    @property
    def sign(self) -> float:
        """1 where a larger value is better, else -1: sign * value is always to be maximised."""
        return 1.0 if self.goal == "maximize" else -1.0

    @cached_property
    def complete(self) -> Results:
        """Only the trials that trained to the last epoch."""
        return replace(self, rows=tuple(row for row in self.rows if row.complete))

    @cached_property
    def parameters(self) -> dict[int, Mapping[str, Value]]:
        """Configuration -> hyperparameters."""
        return {row.configuration: row.parameters for row in self.rows}

    @cached_property
    def layout(self) -> Layout:
        """The complete trials' values, a row each configuration and a column each seed."""
        rows = self.complete.rows
        configurations = tuple(dict.fromkeys(row.configuration for row in rows))
        seeds = tuple(sorted({row.seed for row in rows}))
        values = np.full((len(configurations), len(seeds)), np.nan)
        row_of = {number: index for index, number in enumerate(configurations)}
        column_of = {seed: index for index, seed in enumerate(seeds)}
        for row in rows:
            values[row_of[row.configuration], column_of[row.seed]] = row.value
        values.setflags(write=False)
        return Layout(configurations, seeds, values)


@dataclass(frozen=True)
class Layout:
    """Values by configuration and seed.

    Attributes:
        configurations: Their numbers, one a row.
        seeds: One a column.
        values: [configurations, seeds]; NaN where a configuration has no trial with a seed.
    """

    configurations: tuple[int, ...]
    seeds: tuple[int, ...]
    values: Array

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Trials of each configuration."""
        return np.asarray((~np.isnan(self.values)).sum(axis=1), dtype=np.int64)

    @cached_property
    def means(self) -> Array:
        """Mean of each configuration over its trials."""
        if not self.configurations:
            return np.zeros(0)
        return np.asarray(np.nanmean(self.values, axis=1))

    def index(self, configuration: int) -> int:
        """Returns the row of a configuration.

        Raises:
            ValueError: It has no complete trial.
        """
        if configuration not in self.configurations:
            raise ValueError(f"configuration {configuration} has no complete trial")
        return self.configurations.index(configuration)


def results_of(study: StudyRecord) -> Results:
    """Returns a study's trials that have a value, without controls.

    Trials that a rung stopped are there with their last value and marked as not complete: they
    count in costs, and in no mean.

    Args:
        study: The study, finished or not.
    """
    return Results(
        tuple(
            Result(
                configuration=trial.configuration,
                seed=trial.seed,
                parameters=trial.parameters,
                value=trial.value,
                curve=tuple(row[study.metric] for row in trial.history if study.metric in row),
                cost_seconds=trial.train_seconds,
                complete=trial.state == "done",
            )
            for trial in study.trials
            if trial.configuration is not None
            and trial.state in ("done", "pruned")
            and trial.value is not None
            and math.isfinite(trial.value)
        ),
        study.goal,
        study.parameters,
    )
