"""The study as data: what search writes, and tracking and analysis read. Knows no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Value = float | int | str | bool
"""A hyperparameter's value."""

TrialState = Literal["waiting", "running", "done", "pruned", "failed"]

AttemptReason = Literal[
    "done",
    "pruned",
    "diverged",
    "bad configuration",
    "out of memory",
    "worker crash",
    "preempted",
    "node lost",
    "driver lost",
    "user stop",
]
"""Why an attempt ended. The first four end the trial; after the others it is tried again."""


RACED_OUT = "raced out"
"""How the reason of a trial begins that a race of seeds has spared."""


def trial_name(configuration: int | None, seed: int) -> str:
    """Returns a trial's name: ``c003-s1``, or ``undistilled-s1`` for a control trial."""
    return f"undistilled-s{seed}" if configuration is None else f"c{configuration:03d}-s{seed}"


@dataclass(frozen=True)
class AttemptRecord:
    """One execution of a trial, over all legs from rung to rung until something ended it.

    Attributes:
        number: Counted from 1 in the trial.
        start: When it began, UTC in ISO 8601.
        after_epoch: Epochs that earlier attempts had trained and recorded.
        nodes: Where it ran, in order: host name and address, such as ``gpu-3 (10.0.0.7)``. Of a
            cohort of several workers the first one's node.
        end: When it ended, UTC in ISO 8601; empty while it goes on. Of a lost driver's attempt the
            last sign of life, if there was one.
        epoch: Epochs that were trained and recorded when it ended.
        reason: Why it ended; empty while it goes on.
        detail: The same in a line: of a divergence the epoch and the term, of a crash the error.
    """

    number: int
    start: str
    after_epoch: int = 0
    nodes: tuple[str, ...] = ()
    end: str = ""
    epoch: int = 0
    reason: AttemptReason | Literal[""] = ""
    detail: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """One configuration under one seed, as far as it has come.

    Attributes:
        number: Counted from 0 in order of creation, unique in the study. Control trials
            (undistilled students) count on their own.
        configuration: Number of the configuration, or None for an undistilled control trial.
        seed: The seed that fixes initialisation, data order and augmentation.
        parameters: Searched hyperparameters and their values; empty for a control trial.
        state: Where the trial stands. ``done`` means trained to the last epoch.
        value: The study's metric (see `StudyRecord.mode`); for a pruned trial at its last epoch;
            None if it has none.
        history: One mapping of metric name to value an epoch, first to last, with ``epoch``
            counted from 1.
        group: Name of the trials that it is compared with at rungs: those of one generation and
            seed, such as ``g0-s0``; empty for a control trial.
        reason: Why the trial ended as it did ("rung at epoch 4", "diverged at epoch 3 (ldrld)",
            "raced out after 2 seeds: surely no better than c007 (level 5%)"), or what is wrong
            while it runs ("the disk is full").
        attempt: How many executions the trial has had, 1 for the first; 0 before it started.
        attempts: Those executions, first to last; the earliest are missing if an earlier version
            ran them.
        train_seconds: Seconds spent on the trial's own training steps, summed over attempts; where
            budgets are seconds its training compute, of which shared parts count for each trial.
        student: Path of the trained student's weights, relative to the study folder, or None.
        cohort: Name of the cohort that trains it at this moment; empty if none does, and in what
            is read from the durable record.
    """

    number: int
    configuration: int | None
    seed: int
    parameters: Mapping[str, Value]
    state: TrialState
    value: float | None = None
    history: tuple[Mapping[str, float], ...] = ()
    group: str = ""
    reason: str = ""
    attempt: int = 0
    attempts: tuple[AttemptRecord, ...] = ()
    train_seconds: float = 0.0
    student: str | None = None
    cohort: str = ""

    @property
    def is_control(self) -> bool:
        """Whether this is an undistilled student, trained for comparison."""
        return self.configuration is None

    @property
    def has_ended(self) -> bool:
        """Whether it is done, pruned or failed: nothing more will be trained."""
        return self.state not in ("waiting", "running")

    @property
    def is_raced_out(self) -> bool:
        """Whether a race gave it no training: its configuration is surely no better than another.

        Its reason says than which, and after how many seeds.
        """
        return self.state == "pruned" and self.reason.startswith(RACED_OUT)

    @property
    def name(self) -> str:
        """``c003-s1``: configuration 3 under seed 1; ``undistilled-s1`` for a control trial."""
        return trial_name(self.configuration, self.seed)


@dataclass(frozen=True)
class FinalScores:
    """Test-set accuracies of one kind of network, in percent, one a seed.

    Attributes:
        label: ``teacher``, ``undistilled student`` or ``distilled student``.
        accuracies: Seed -> top-1 accuracy in percent. A teacher has one entry with seed -1.
        parameters: Parameters of one such network, 0 if there is none: a method may have given
            the student another end (SimKD).
    """

    label: str
    accuracies: Mapping[int, float]
    parameters: int = 0


@dataclass(frozen=True)
class FinalEvaluation:
    """The one reading of the test set.

    Attributes:
        configuration: The chosen configuration.
        scores: Teacher, undistilled and distilled student.
        reads: How many times this study's test set has been read, this time included.
        test_images: Number of test images.
    """

    configuration: int
    scores: tuple[FinalScores, ...]
    reads: int
    test_images: int


@dataclass(frozen=True)
class StudyRecord:
    """A study and all of its trials, read from the durable record.

    Attributes:
        name: The study's name.
        folder: The study folder: everything the study owns lies in it.
        metric: Name of the metric that is searched, such as ``val_accuracy``.
        goal: Direction of the metric.
        mode: How a trial's value comes from its history: last, best or mean of the last n.
        epochs: Epochs of a full trial.
        seeds: The study's seeds.
        rungs: Epochs after which the worst trials are dropped; empty without rungs.
        parameters: Names of the searched hyperparameters in file order.
        study_file: The study as YAML, defaults and overrides included.
        trials: The planned trials, by number.
        controls: The undistilled control trials.
        final: The final evaluation, when there is one.
        versions: Versions of the libraries that ran the study.
        commit: Git commit of the working directory, or empty.
        first: How many configurations the search was given to begin with.
        warm_start: The study whose best configurations those are; empty if none.
        teacher_note: What students see of the teacher, if not what it computes; or empty.
        remarks: What a reader must know of how it was trained, in sentences.
        budget_seconds: Seconds of training compute of a trial, times its ``budget.compute``, where
            those are the budget and epochs are parts of them; None where the budget is epochs.
    """

    name: str
    folder: Path
    metric: str
    goal: Literal["maximize", "minimize"]
    mode: str
    epochs: int
    seeds: tuple[int, ...]
    rungs: tuple[int, ...]
    parameters: tuple[str, ...]
    study_file: str
    trials: tuple[TrialRecord, ...]
    controls: tuple[TrialRecord, ...] = ()
    final: FinalEvaluation | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    first: int = 0
    warm_start: str = ""
    teacher_note: str = ""
    remarks: tuple[str, ...] = ()
    budget_seconds: float | None = None
