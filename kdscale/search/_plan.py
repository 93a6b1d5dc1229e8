"""Which trials a study has, in which generations and rung groups: functions of its file alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from kdscale.records import trial_name
from kdscale.search._study import Study

CONTROL = -1
"""Stands for the configuration of an undistilled control trial."""

MODEL_BASED = ("tpe", "gp", "cmaes")
"""Search methods that learn from one generation before they ask for the next."""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial before it has a number.

    Attributes:
        configuration: Number of the configuration, or `CONTROL` for an undistilled control trial.
        seed: Its seed.
    """

    configuration: int
    seed: int

    @property
    def name(self) -> str:
        """The trial's name."""
        control = self.configuration == CONTROL
        return trial_name(None if control else self.configuration, self.seed)


def generations(study: Study) -> int:
    """Returns how many generations the study's configurations make."""
    return ceil(study.configurations / study.generation_size)


def generation(study: Study, number: int) -> list[PlannedTrial]:
    """Returns the trials of a generation, seed by seed: configurations asked for together."""
    first = number * study.generation_size
    last = min(first + study.generation_size, study.configurations)
    return [
        PlannedTrial(configuration, seed)
        for seed in study.seed_list
        for configuration in range(first, last)
    ]


def controls(study: Study) -> list[PlannedTrial]:
    """Returns the undistilled control trials: one a seed."""
    seeds = study.seed_list if study.undistilled else ()
    return [PlannedTrial(CONTROL, seed) for seed in seeds]


def rung_group(study: Study, configuration: int, seed: int) -> str:
    """Returns the name of the trials that are compared at a rung: of one generation, one seed.

    Who they are depends on the study file alone: not on which trials train together, nor on the
    machine. A raised budget adds groups, and members to the last one at most.
    """
    return f"g{configuration // study.generation_size}-s{seed}"


def next_boundary(study: Study, epoch: int) -> int:
    """Returns the next epoch at which a trial's training may end: a rung or the last epoch."""
    return next((rung for rung in study.rung_epochs if rung > epoch), study.budget.epochs)


def most_together(study: Study) -> int:
    """Returns the most trials that can ever train together: those of one seed that are planned."""
    learns = study.search.method in MODEL_BASED
    configurations = study.generation_size if learns else study.configurations
    return min(configurations, study.configurations) + study.undistilled


@dataclass(frozen=True)
class Cost:
    """How much a study trains at most, and at least with rungs.

    Attributes:
        student_epochs: Epochs of training summed over trials, controls included, if none fails.
        without_rungs: The same if every trial trained to the last epoch.
        teacher_epochs: Passes of the teacher over the training set, if cohorts are as large as
            they may be.
    """

    student_epochs: int
    without_rungs: int
    teacher_epochs: int


def cost(study: Study, cohort_size: int) -> Cost:
    """Returns the study's cost in epochs.

    Args:
        study: The study.
        cohort_size: The most trials that train together.
    """
    epochs, seeds = study.budget.epochs, len(study.seed_list)
    sizes = [len(generation(study, number)) // seeds for number in range(generations(study))]
    # What is planned at once can train together.
    waves = [[size] for size in sizes] if study.search.method in MODEL_BASED else [sizes]
    students = teachers = start = 0
    for end in (*study.rung_epochs, epochs):
        students += (end - start) * sum(map(sum, waves))
        teachers += (end - start) * sum(ceil(sum(wave) / cohort_size) for wave in waves)
        start = end
        eta = study.rungs.eta if study.rungs else 1
        waves = [[max(1, size // eta) for size in wave] for wave in waves]
    control_epochs = len(controls(study)) * epochs
    return Cost(
        student_epochs=students * seeds + control_epochs,
        without_rungs=study.trials * epochs + control_epochs,
        teacher_epochs=teachers * seeds,
    )
