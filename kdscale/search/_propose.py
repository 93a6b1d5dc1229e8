"""Configurations from Optuna's model-based samplers, as a pure function of what is known.

A sampler never sees the durable study, only a copy in memory with one trial a configuration: its
value is the mean over seeds, so the sampler models the effect of a configuration and not the
noise of a seed; where seeds are raced, the mean with what its seeds do to all taken out. The
sampler is seeded anew for each configuration number. So a proposal is a function of (search.seed,
number, outcomes): the same after any restart and on any cluster.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdscale.racing import fair_means
from kdscale.records import TrialRecord, Value
from kdscale.search._study import Study

_STATES = {
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


@dataclass(frozen=True)
class Proposal:
    """A configuration and what the sampler wants to remember with it.

    Attributes:
        parameters: A value for each searched parameter.
        memory: The sampler's own attributes (CMA-ES keeps its generation there).
    """

    parameters: Mapping[str, Value]
    memory: Mapping[str, Any] = field(default_factory=dict)


def propose(
    study: Study,
    known: Sequence[Sequence[TrialRecord]],
    number: int,
    memories: Sequence[Mapping[str, Any]],
) -> Proposal:
    """Returns the next configuration of a search that learns from results.

    Args:
        study: The study.
        known: The trials of each configuration so far, in order of configurations.
        number: Number of the new configuration.
        memories: What `Proposal.memory` held for each configuration so far.
    """
    baseline = study.baseline
    if number == 0 and baseline is not None:
        return Proposal(baseline)
    sampler = _sampler(study, number)
    copy = optuna.create_study(sampler=sampler, direction=study.metric.goal)
    distributions = study.distributions()
    fair = _fair_means(known) if study.tolerance is not None else {}
    outcomes = [
        _outcome(study, trials, memory, fair.get(index))
        for index, (trials, memory) in enumerate(zip(known, memories, strict=True))
    ]
    if study.search.method != "tpe":
        outcomes = _with_values(study, outcomes)
    copy.add_trials(outcomes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)
        trial = copy.ask(distributions)
    frozen = copy.trials[-1]
    parameters = {name: trial.params[name] for name in distributions}
    return Proposal(parameters, dict(frozen.system_attrs))


def _sampler(study: Study, number: int) -> BaseSampler:
    seed = (study.search.seed * 1_000_003 + number) % 2**32
    match study.search.method:
        case "tpe":
            return TPESampler(seed=seed, constant_liar=True)
        case "gp":
            return GPSampler(seed=seed)
        case "cmaes":
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case other:
            raise ValueError(f"{other} learns from no result: it has a design")


def _fair_means(known: Sequence[Sequence[TrialRecord]]) -> dict[int, float]:
    """Returns by configuration the mean over the seeds that a race gave it, fair to the others."""
    return fair_means(
        {
            (index, trial.seed): trial.value
            for index, trials in enumerate(known)
            for trial in trials
            if trial.state == "done" and trial.value is not None and math.isfinite(trial.value)
        }
    )


def _outcome(
    study: Study,
    trials: Sequence[TrialRecord],
    memory: Mapping[str, Any],
    fair: float | None = None,
) -> FrozenTrial:
    """Returns one Optuna trial that stands for a configuration under the seeds that it had.

    It is COMPLETE with the mean value if every seed trained to the end; PRUNED with the mean
    curve up to the last epoch that all seeds reached if one was dropped; RUNNING while a seed is
    in training; FAIL only if no seed has learnt anything about it. If one diverged it is PRUNED
    without a curve: tpe ranks that behind all that were dropped, however good it looked before,
    and the other samplers take the worst value that there is.

    Args:
        study: The study.
        trials: The configuration's trials.
        memory: What the sampler remembered with it.
        fair: What stands for the mean value, where there is something better.
    """
    parameters = dict(trials[0].parameters)
    trials = [trial for trial in trials if not trial.is_raced_out]
    states = {trial.state for trial in trials}
    diverged = any(trial.reason.startswith("diverged") for trial in trials)
    if states & {"waiting", "running"}:
        state = "running"
    elif states == {"done"}:
        state = "done"
    elif diverged or any(trial.history for trial in trials):
        state = "pruned"
    else:
        state = "failed"
    curves = [[row[study.metric.name] for row in trial.history] for trial in trials]
    intermediate = {
        epoch: fmean(values) for epoch, values in enumerate(zip(*curves, strict=False), start=1)
    }
    values = [trial.value for trial in trials if trial.value is not None]
    return create_trial(
        state=_STATES[state],
        value=(fmean(values) if fair is None else fair) if state == "done" else None,
        params=parameters,
        distributions=study.distributions(),
        intermediate_values=intermediate if state in ("done", "pruned") and not diverged else {},
        system_attrs=dict(memory),
    )


def _with_values(study: Study, outcomes: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns outcomes for samplers that overlook pruned trials: those count as the worst value.

    Otherwise gp and cmaes would ask again and again for what has been dropped or has diverged.
    """
    done = [trial.values[0] for trial in outcomes if trial.state == TrialState.COMPLETE]
    if not done:
        return list(outcomes)
    worst = min(done) if study.metric.goal == "maximize" else max(done)
    return [
        create_trial(
            value=worst,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs=trial.system_attrs,
        )
        if trial.state == TrialState.PRUNED
        else trial
        for trial in outcomes
    ]
