"""Which trials a study has, in which generations and rung groups: functions of its file alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from kdscale.racing import PILOTS
from kdscale.records import TrialRecord, trial_name
from kdscale.search._study import Study

CONTROL = -1
"""Stands for the configuration of an undistilled control trial."""

MODEL_BASED = ("tpe", "gp", "cmaes")
"""Search methods that learn from one generation before they ask for the next."""

_SECONDS_AN_HOUR = 3600.0


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
    students = teachers = start = 0
    for end, waves in zip((*study.rung_epochs, epochs), _waves(study), strict=True):
        students += (end - start) * sum(map(sum, waves))
        teachers += (end - start) * sum(ceil(sum(wave) / cohort_size) for wave in waves)
        start = end
    with_rungs, left = seeds, _waves(study)[-1]
    if study.tolerance is not None:  # rungs compare under the first seed alone
        with_rungs = 1
    whole = (seeds - with_rungs) * epochs
    students = with_rungs * students + whole * sum(map(sum, left))
    teachers = with_rungs * teachers + whole * sum(ceil(sum(one) / cohort_size) for one in left)
    control_epochs = len(controls(study)) * epochs
    return Cost(
        student_epochs=students + control_epochs,
        without_rungs=study.trials * epochs + control_epochs,
        teacher_epochs=teachers,
    )


def fewest_and_most(study: Study) -> tuple[int, int]:
    """Returns how many trials are trained at least and at most, if none fails or diverges.

    All of them, unless seeds are raced: then each configuration has one, the best of the first race
    show the noise under a second one, and the winner has all.
    """
    if study.tolerance is None:
        return study.trials, study.trials
    further, left = len(study.seed_list) - 1, _waves(study)[-1]
    pilots = min(PILOTS, sum(left[0])) - 1
    return (
        study.configurations + further + pilots,
        study.configurations + further * sum(map(sum, left)),
    )


def over_budget(study: Study, seconds: float) -> bool:
    """Returns whether ``budget.gpu_hours`` is used up.

    Args:
        study: The study.
        seconds: What all trials have trained. A trial's seconds are its share of its cohort's, so
            their sum is the cohorts' time.
    """
    hours = study.budget.gpu_hours
    if hours is None:
        return False
    workers = study.resources.workers * (study.resources.gpus_per_worker or 1.0)
    return seconds * workers >= hours * _SECONDS_AN_HOUR


def spared_epochs(study: Study, trials: Iterable[TrialRecord]) -> int:
    """Returns how many epochs of what a study costs at most a race has spared so far."""
    raced_out = sum(trial.is_raced_out for trial in trials)
    _, most = fewest_and_most(study)
    dropped = study.trials - most  # by rungs: not in the cost
    return max(0, raced_out - dropped) * study.budget.epochs


def _waves(study: Study) -> list[list[list[int]]]:
    """Returns from rung to rung how many configurations of each generation are left.

    What is planned at once, and so can train together, is a list of its own.
    """
    seeds, eta = len(study.seed_list), study.rungs.eta if study.rungs else 1
    sizes = [len(generation(study, number)) // seeds for number in range(generations(study))]
    found = [[[size] for size in sizes] if study.search.method in MODEL_BASED else [sizes]]
    for _ in study.rung_epochs:
        found.append([[max(1, size // eta) for size in wave] for wave in found[-1]])
    return found
