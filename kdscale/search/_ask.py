"""Asks the search for configurations, and plans their trials in the ledger."""

from __future__ import annotations

from collections.abc import Callable

from kdscale.records import TrialRecord
from kdscale.search._designs import designed_configuration
from kdscale.search._ledger import Ledger
from kdscale.search._plan import MODEL_BASED, PlannedTrial, generation
from kdscale.search._propose import Proposal, propose


def ask_generation(
    ledger: Ledger, number: int, on_change: Callable[[TrialRecord], None]
) -> list[TrialRecord]:
    """Plans what is missing of a generation, and returns its trials.

    Args:
        ledger: The study's record.
        number: Number of the generation, from 0.
        on_change: Called with every trial that is new.
    """
    trials = []
    # One configuration after the other, under all seeds: the sampler sees what it asked before.
    for planned in sorted(
        generation(ledger.study, number), key=lambda one: (one.configuration, one.seed)
    ):
        trial = ledger.find(planned.name)
        if trial is None:
            trial = ledger.add(planned, _proposal(ledger, planned.configuration))
            on_change(trial)
        trials.append(trial)
    return trials


def _proposal(ledger: Ledger, configuration: int) -> Proposal:
    study = ledger.study
    for seed in study.seed_list:
        sibling = ledger.find(PlannedTrial(configuration, seed).name)
        if sibling is not None:  # proposed already, for another seed
            return Proposal(sibling.parameters)
    if configuration < len(study.first):
        return Proposal(study.first[configuration])
    if study.search.method in MODEL_BASED and study.axes:
        return propose(study, ledger.by_configuration(), configuration, ledger.memories())
    return Proposal(designed_configuration(study, configuration))
