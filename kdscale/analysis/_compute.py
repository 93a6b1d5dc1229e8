"""What each configuration scored, and the seconds that it took: a stronger signal, or more of them.

Where ``budget.match`` is ``wall_clock``, seconds are training compute as if a trial trained alone.
Else they are its share of its cohort's time, and equal epochs are what trials have in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from kdscale.analysis import _format as fmt
from kdscale.analysis._estimate import Difference, Estimate, estimate, paired_difference
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._summary import configuration_name, full_value
from kdscale.records import StudyRecord, TrialRecord, Value

COMPUTE = "budget.compute"
"""The parameter that multiplies a trial's seconds."""

UNDISTILLED = "undistilled"
_SECONDS_A_MILLISECOND = 1e-3


@dataclass(frozen=True)
class ComputePoint:
    """One configuration, or the undistilled student.

    Attributes:
        name: ``c003`` or ``undistilled``.
        line: What it is whatever its seconds: its hyperparameters in words but `COMPUTE`.
        parameters: All of its hyperparameters.
        multiple: How many times ``budget.seconds`` it had; 1 where nobody said.
        seconds: Mean over its complete trials.
        values: Seed -> metric of those.
        step_milliseconds: Of a step of all that it pays for; None where that is not measured.
        teacher_part: Part of its seconds that went to the teacher; None likewise.
        data_epochs: How often it saw the data; None likewise.
    """

    name: str
    line: str
    parameters: Mapping[str, Value]
    multiple: float
    seconds: float
    values: Mapping[int, float]
    step_milliseconds: float | None = None
    teacher_part: float | None = None
    data_epochs: float | None = None

    @property
    def estimate(self) -> Estimate:
        """The mean over seeds with its interval."""
        return estimate(self.values.values())


def compute_points(study: StudyRecord) -> tuple[ComputePoint, ...]:
    """Returns the undistilled student and each configuration with complete trials.

    In order of their lines, of which those of the cheapest steps come first, and of their seconds.
    """
    trials = [t for t in (*study.controls, *study.trials) if full_value(t) is not None]
    by_name = sorted(trials, key=_name)
    points = [_point(study, name, list(own)) for name, own in groupby(by_name, key=_name)]
    if not any(point.seconds for point in points):
        return ()
    cheapest: dict[str, float] = {}
    for point in points:
        step = point.step_milliseconds or point.seconds
        cheapest[point.line] = min(step, cheapest.get(point.line, math.inf))
    return tuple(sorted(points, key=lambda p: (cheapest[p.line], p.line, p.seconds)))


def largest_miss(study: StudyRecord) -> tuple[float, int] | None:
    """Returns by which part of its budget a complete trial missed it at most, and their number."""
    if study.budget_seconds is None:
        return None
    misses = [
        abs(_spent(trial) / (study.budget_seconds * _multiple(trial)) - 1.0)
        for trial in (*study.controls, *study.trials)
        if trial.state == "done" and trial.history
    ]
    return (max(misses), len(misses)) if misses else None


def compute_note(study: StudyRecord, points: Iterable[ComputePoint]) -> str:
    """Returns what the points say of signal and compute, and what they cannot say."""
    known = list(points)
    if not known:
        return ""
    if study.budget_seconds is None:
        return _epochs_note(known)
    sentences = []
    if miss := largest_miss(study):
        many = fmt.count(miss[1], "complete trial")
        sentences.append(f"The {many} stopped within {100 * miss[0]:.2f}% of their seconds.")
    for multiple in sorted({point.multiple for point in known}):
        sentences += _signal(study, [point for point in known if point.multiple == multiple])
    sentences += _more_compute(study, known)
    sentences.append(
        "Which configuration leads was seen in these same numbers, so its lead flatters it. "
        "Seconds were measured: on another machine the same steps cost others."
    )
    return " ".join(sentences)


def _signal(study: StudyRecord, points: list[ComputePoint]) -> list[str]:
    """Returns who leads at equal seconds, against whom each step costs least."""
    rivals = [point for point in points if point.step_milliseconds]
    if len(rivals) < 2:
        return []
    sign = 1.0 if study.goal == "maximize" else -1.0
    most = max(len(point.values) for point in rivals)
    rivals = [point for point in rivals if len(point.values) == most]
    best = max(rivals, key=lambda point: sign * point.estimate.mean)
    cheapest = min(rivals, key=lambda point: point.step_milliseconds or math.inf)
    at = f"At {fmt.seconds(best.seconds)} of compute each (×{best.multiple:g})"
    if best.name == cheapest.name:
        return [f"{at} {best.name}, whose steps cost least, leads."]
    ratio = (best.step_milliseconds or 0.0) / (cheapest.step_milliseconds or 1.0)
    told = _told(study, paired_difference(best.values, cheapest.values, study.goal))
    return [
        f"{at} {best.name} leads, whose steps cost {ratio:.2f} times those of {cheapest.name}, "
        f"the cheapest: {told}."
    ]


def _more_compute(study: StudyRecord, points: list[ComputePoint]) -> list[str]:
    """Returns what more compute did for each line that had it."""
    told = []
    for line, own in groupby(points, key=lambda point: point.line):
        there = list(own)
        first, last = there[0], there[-1]
        if first.multiple < last.multiple:
            difference = paired_difference(last.values, first.values, study.goal)
            more = f"×{last.multiple:g} instead of ×{first.multiple:g}"
            told.append(f"More compute alone ({line}, {more}): {_told(study, difference)}.")
    return told


def _told(study: StudyRecord, difference: Difference | None) -> str:
    if difference is None:
        return "no seed in common"
    metric, known = MetricFormat(study.metric), difference.estimate
    interval = f", 95% interval {metric.signed_interval(known)}" if known.low is not None else ""
    n = f", n = {known.n}" if known.n > 1 else ""
    return f"{metric.signed(known.mean)}{interval}{n}, {difference.verdict}"


def _epochs_note(points: list[ComputePoint]) -> str:
    seconds = [point.seconds for point in points if point.seconds]
    ratio = max(seconds) / min(seconds)
    return (
        f"All trials trained equal epochs, not equal seconds: the dearest took {ratio:.2f} times "
        "the cheapest's. What scores better here may do so by its signal or by its compute; "
        "budget.match: wall_clock tells them apart. Seconds are a trial's share of its cohort's "
        "training, the teacher's pass included, on a machine that may have had other work."
    )


def _point(study: StudyRecord, name: str, trials: list[TrialRecord]) -> ComputePoint:
    parameters = trials[0].parameters
    others = {key: value for key, value in parameters.items() if key != COMPUTE}
    lasts = [trial.history[-1] for trial in trials if trial.history]
    timed = [row for row in lasts if row.get("steps")] if study.budget_seconds else []
    return ComputePoint(
        name=name,
        line=UNDISTILLED if name == UNDISTILLED else fmt.parameters(others),
        parameters=parameters,
        multiple=_multiple(trials[0]),
        seconds=fmean(_spent(trial) for trial in trials),
        values={t.seed: value for t in trials if (value := full_value(t)) is not None},
        step_milliseconds=_mean(
            row["compute_seconds"] / row["steps"] / _SECONDS_A_MILLISECOND for row in timed
        ),
        teacher_part=_mean(row["teacher_seconds"] / row["compute_seconds"] for row in timed),
        data_epochs=_mean(row["data_epochs"] for row in timed),
    )


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None


def _spent(trial: TrialRecord) -> float:
    last = trial.history[-1] if trial.history else {}
    return last.get("compute_seconds", trial.train_seconds)


def _multiple(trial: TrialRecord) -> float:
    return float(trial.parameters.get(COMPUTE, 1.0))


def _name(trial: TrialRecord) -> str:
    return UNDISTILLED if trial.configuration is None else configuration_name(trial.configuration)
