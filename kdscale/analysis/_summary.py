"""What a study shows, configuration by configuration. Pure functions of a `StudyRecord`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kdscale.analysis._estimate import Difference, Estimate, Goal, estimate, paired_difference
from kdscale.analysis.statistics import far_worse, results_of
from kdscale.records import (
    RACED_OUT,
    FinalEvaluation,
    StudyRecord,
    TrialRecord,
    TrialState,
    Value,
)

TEACHER = "teacher"
UNDISTILLED = "undistilled student"
DISTILLED = "distilled student"


@dataclass(frozen=True)
class ConfigurationSummary:
    """One configuration over its seeds.

    Attributes:
        number: The configuration's number.
        parameters: Searched hyperparameters and their values.
        values: Seed -> the study's metric, of the trials that trained to the last epoch.
        pruned: Seeds whose trial was stopped at a rung or diverged.
        failed: Seeds whose trial failed.
        unfinished: Seeds whose trial waits or runs.
        raced_out: Why a race gave it no further seed, and after how many; empty if none did.
    """

    number: int
    parameters: Mapping[str, Value]
    values: Mapping[int, float]
    pruned: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    unfinished: tuple[int, ...] = ()
    raced_out: str = ""

    @property
    def name(self) -> str:
        """``c010``, as in the names of its trials."""
        return configuration_name(self.number)

    @property
    def n(self) -> int:
        """Number of seeds trained to the last epoch."""
        return len(self.values)

    @property
    def estimate(self) -> Estimate | None:
        """Mean over the seeds trained to the last epoch, or None if there is none."""
        return estimate(self.values.values()) if self.values else None


@dataclass(frozen=True)
class Cost:
    """What a study has spent so far, controls included.

    Attributes:
        trials: Trials that started.
        controls: How many of them were undistilled controls.
        epochs: Epochs trained.
        train_seconds: Seconds of training steps.
    """

    trials: int
    controls: int
    epochs: int
    train_seconds: float


def configuration_name(number: int) -> str:
    """Returns ``c010``, as in the names of the configuration's trials."""
    return f"c{number:03d}"


def full_value(trial: TrialRecord) -> float | None:
    """Returns the metric of a trial that trained to the last epoch, else None."""
    if trial.state == "done" and trial.value is not None and math.isfinite(trial.value):
        return trial.value
    return None


def seed_values(trials: Iterable[TrialRecord]) -> dict[int, float]:
    """Returns seed -> metric of the trials that trained to the last epoch, by seed."""
    pairs = ((trial.seed, full_value(trial)) for trial in trials)
    return dict(sorted((seed, value) for seed, value in pairs if value is not None))


def summarise(study: StudyRecord) -> tuple[ConfigurationSummary, ...]:
    """Returns each configuration's summary, by number."""
    groups: dict[int, list[TrialRecord]] = {}
    for trial in study.trials:
        if trial.configuration is not None:
            groups.setdefault(trial.configuration, []).append(trial)
    return tuple(_summary(number, groups[number]) for number in sorted(groups))


def rank(summaries: Iterable[ConfigurationSummary], goal: Goal) -> tuple[ConfigurationSummary, ...]:
    """Returns the configurations from best to worst.

    More seeds trained to the end come first: where rungs or failures took some seeds away, the
    mean of those left is that of a lucky subset. Then the better mean, then the lower number.
    """
    return tuple(sorted(summaries, key=lambda summary: _rank_key(summary, goal)))


def candidates(study: StudyRecord) -> tuple[ConfigurationSummary, ...]:
    """Returns the configurations that can be called best, from best to worst.

    They are not far worse than the rest, and have as many seeds trained to the last epoch as any
    other of these has.
    """
    far = far_worse(results_of(study))
    ranked = rank((one for one in summarise(study) if one.number not in far), study.goal)
    most = ranked[0].n if ranked else 0
    return tuple(summary for summary in ranked if summary.n == most) if most else ()


def best_configuration(study: StudyRecord) -> ConfigurationSummary | None:
    """Returns the best configuration, or None if no trial has trained to the last epoch.

    It is the one with the best mean among its `candidates`; of equal ones that with the lower
    number.
    """
    return next(iter(candidates(study)), None)


def validation_difference(study: StudyRecord) -> Difference | None:
    """Returns best configuration minus undistilled student in the study's metric, paired by seed.

    The best configuration was chosen on these same numbers, so the difference flatters it; its
    interval does not know of that choice. None without a best configuration or a common seed.
    """
    best = best_configuration(study)
    if best is None:
        return None
    return paired_difference(best.values, seed_values(study.controls), study.goal)


def final_difference(final: FinalEvaluation) -> Difference | None:
    """Returns distilled minus undistilled student in test accuracy, paired by seed.

    In percentage points. None if one of them is missing or they share no seed.
    """
    accuracies = {scores.label: scores.accuracies for scores in final.scores}
    return paired_difference(
        accuracies.get(DISTILLED, {}), accuracies.get(UNDISTILLED, {}), "maximize"
    )


def cost(study: StudyRecord) -> Cost:
    """Returns what the study has spent so far."""
    started = [
        trial for trial in (*study.trials, *study.controls) if trial.attempt or trial.history
    ]
    return Cost(
        trials=len(started),
        controls=sum(trial.is_control for trial in started),
        epochs=sum(len(trial.history) for trial in started),
        train_seconds=math.fsum(trial.train_seconds for trial in started),
    )


def state_counts(study: StudyRecord) -> Counter[TrialState]:
    """Returns how many trials, controls included, stand in each state."""
    return Counter(trial.state for trial in (*study.trials, *study.controls))


def failure_reasons(study: StudyRecord) -> list[tuple[str, int]]:
    """Returns why trials failed and how many for each reason, most frequent first."""
    reasons = Counter(
        trial.reason or "no reason recorded"
        for trial in (*study.trials, *study.controls)
        if trial.state == "failed"
    )
    return reasons.most_common()


def attempt_reasons(study: StudyRecord) -> list[tuple[str, int]]:
    """Returns why attempts ended that were followed by another, most frequent first."""
    reasons = Counter(
        attempt.reason
        for trial in (*study.trials, *study.controls)
        for attempt in trial.attempts[:-1]
        if attempt.reason
    )
    return [(str(reason), number) for reason, number in reasons.most_common()]


def nodes(study: StudyRecord) -> tuple[str, ...]:
    """Returns where the study's attempts ran, in order of their names."""
    return tuple(
        sorted(
            {
                node
                for trial in (*study.trials, *study.controls)
                for attempt in trial.attempts
                for node in attempt.nodes
            }
        )
    )


def _summary(number: int, trials: list[TrialRecord]) -> ConfigurationSummary:
    raced_out = [trial for trial in trials if trial.is_raced_out]
    began = [trial for trial in trials if not trial.is_raced_out]

    def seeds(*states: TrialState) -> tuple[int, ...]:
        return tuple(sorted(trial.seed for trial in began if trial.state in states))

    return ConfigurationSummary(
        number=number,
        parameters=trials[0].parameters,
        values=seed_values(trials),
        pruned=seeds("pruned"),
        failed=seeds("failed"),
        unfinished=seeds("waiting", "running"),
        raced_out=raced_out[0].reason.removeprefix(f"{RACED_OUT} ") if raced_out else "",
    )


def _rank_key(summary: ConfigurationSummary, goal: Goal) -> tuple[int, float, int]:
    known = summary.estimate
    mean = known.mean if known else 0.0
    return (-summary.n, -mean if goal == "maximize" else mean, summary.number)
