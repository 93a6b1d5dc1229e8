"""Which trials a study has, in which generations and cohorts: pure functions of the study file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from kdscale.search._study import Study

CONTROL = -1
"""Stands for the configuration of an undistilled control trial."""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial before it has a number.

    Attributes:
        configuration: Number of the configuration, or `CONTROL` for an undistilled control trial.
        seed: Its seed.
        cohort: Name of the cohort that will train it.
    """

    configuration: int
    seed: int
    cohort: str


def generations(study: Study) -> int:
    """Returns how many generations the study's configurations make."""
    return ceil(study.configurations / study.generation_size)


def generation(study: Study, number: int) -> list[PlannedTrial]:
    """Returns the trials of a generation, cohort by cohort.

    Configurations of a generation are asked for together. Under each seed they are dealt out to
    cohorts in order, so a cohort's members depend on the study file alone: not on the cluster,
    nor on which trials ended first.
    """
    first = number * study.generation_size
    last = min(first + study.generation_size, study.configurations)
    chunks = [
        range(start, min(start + study.cohort_size, last))
        for start in range(first, last, study.cohort_size)
    ]
    return [
        PlannedTrial(configuration, seed, f"g{number}-s{seed}-{index}")
        for seed in study.seed_list
        for index, chunk in enumerate(chunks)
        for configuration in chunk
    ]


def cohorts_of_a_generation(study: Study) -> int:
    """Returns how many cohorts of searched trials can train at once: none waits for another."""
    return len({trial.cohort for trial in generation(study, 0)})


def controls(study: Study) -> list[PlannedTrial]:
    """Returns the undistilled control trials: one a seed, each a cohort of its own."""
    seeds = study.seed_list if study.undistilled else ()
    return [PlannedTrial(CONTROL, seed, f"undistilled-s{seed}") for seed in seeds]


@dataclass(frozen=True)
class Cost:
    """How much a study trains at most, and at least with rungs.

    Attributes:
        cohorts: Cohorts of searched trials.
        student_epochs: Epochs of training summed over trials, controls included, if none fails.
        without_rungs: The same if every trial trained to the last epoch.
        teacher_epochs: Passes of the teacher over the training set.
    """

    cohorts: int
    student_epochs: int
    without_rungs: int
    teacher_epochs: int


def cost(study: Study) -> Cost:
    """Returns the study's cost in epochs."""
    epochs = study.budget.epochs
    sizes = [
        size
        for number in range(generations(study))
        for size in Counter(trial.cohort for trial in generation(study, number)).values()
    ]
    control_epochs = len(controls(study)) * epochs
    return Cost(
        cohorts=len(sizes),
        student_epochs=sum(_cohort_epochs(study, size) for size in sizes) + control_epochs,
        without_rungs=study.trials * epochs + control_epochs,
        teacher_epochs=len(sizes) * epochs,
    )


def _cohort_epochs(study: Study, size: int) -> int:
    total, start = 0, 0
    for rung in study.rung_epochs:
        total += size * (rung - start)
        start = rung
        size = max(1, size // study.rungs.eta) if study.rungs else size
    return total + size * (study.budget.epochs - start)
