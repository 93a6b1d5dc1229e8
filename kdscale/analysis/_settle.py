"""What would settle what a study leaves open, in seeds."""

from __future__ import annotations

import math

from scipy.special import stdtrit

from kdscale.analysis import _format as fmt
from kdscale.analysis._estimate import CONFIDENCE, Difference
from kdscale.analysis._findings import Findings
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._summary import (
    configuration_name,
    final_difference,
    state_counts,
    validation_difference,
)
from kdscale.analysis.statistics import seeds_needed

_POWER = "in four of five repetitions of the study"


def next_step(findings: Findings) -> str:
    """Returns what would settle the rest, in one to three sentences; empty if nothing is known."""
    study = findings.study
    counts = state_counts(study)
    if counts["waiting"] or counts["running"]:
        return "Let the sweep end: the command that started it continues it."
    if findings.best is None:
        return ""
    return f"{_choice(findings)} {_distillation(findings)}".strip()


def _choice(findings: Findings) -> str:
    """Returns what would tell the best configuration from those that rival it."""
    best, settled = findings.best, findings.settlement
    assert best is not None
    if findings.floor is None or findings.floor.within.sd == 0.0:
        if not findings.rivals and findings.floor is None:
            return "More seeds: one value does not show how far values move by themselves."
        return (
            "More seeds: nothing here shows how far values move from seed to seed, so no "
            "difference between configurations can be judged."
        )
    if settled is None:
        if not findings.rivals and len(findings.results.layout.configurations) > 1:
            return "The choice among these configurations needs nothing more."
        return ""
    metric = MetricFormat(findings.study.metric)
    rival = configuration_name(settled.rival)
    nearest = "the nearest of them" if len(findings.rivals) > 1 else "the other one"
    if settled.seeds is not None and round(settled.gap, metric.decimals) < 0:
        return (
            f"The missing seeds of {rival}, {nearest}: with those that it has, it is "
            f"{metric.distance(settled.gap)} ahead of {best.name}."
        )
    if settled.seeds is None or not round(settled.gap, metric.decimals):
        text = f"{best.name} and {rival}, {nearest}, are level: no number of seeds will part them."
    else:
        text = (
            f"If {best.name} really is {metric.distance(settled.gap)} better than {rival}, "
            f"{nearest}, it takes about {fmt.count(settled.seeds, 'paired seed')} to see that "
            f"{_POWER}."
        )
    have = "one seed" if settled.n == 1 else f"{settled.n} seeds"
    return f"{text} The {have} of this study can show {metric.distance(settled.shown)}."


def _distillation(findings: Findings) -> str:
    """Returns what would show a difference to the undistilled student that noise still hides."""
    study = findings.study
    difference = validation_difference(study)
    if study.final is not None:
        difference = final_difference(study.final)
    needed = _needed(difference) if difference is not None else None
    if needed is None:
        return ""
    return (
        f"A difference to the undistilled student as large as the one seen takes about "
        f"{fmt.count(needed, 'seed')}."
    )


def _needed(difference: Difference) -> int | None:
    """Returns seeds for the difference as it was seen, or None where that is idle to say."""
    known = difference.estimate
    if difference.distinguishable or known.low is None or known.high is None:
        return None
    half = (known.high - known.low) / 2.0
    sd = half / float(stdtrit(known.n - 1, (1.0 + CONFIDENCE) / 2.0)) * math.sqrt(known.n)
    needed = seeds_needed(known.mean, sd)
    return needed if needed is not None and needed > known.n else None
