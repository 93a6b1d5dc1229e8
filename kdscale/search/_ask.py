"""Asks the search for configurations, and plans their trials in the ledger."""

from __future__ import annotations

from kdscale.records import TrialRecord
from kdscale.search._designs import designed_configuration
from kdscale.search._ledger import Ledger
from kdscale.search._plan import MODEL_BASED, PlannedTrial, generation
from kdscale.search._propose import Proposal, propose


def ask_generation(ledger: Ledger, number: int) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Plans what is missing of a generation, and returns its trials, and those that are new.

    Args:
        ledger: The study's record.
        number: Number of the generation, from 0.
    """
    trials, new = [], []
    # One configuration after the other, under all seeds: the sampler sees what it asked before.
    for planned in sorted(
        generation(ledger.study, number), key=lambda one: (one.configuration, one.seed)
    ):
        trial = ledger.find(planned.name)
        if trial is None:
            trial = ledger.add(planned, _proposal(ledger, planned.configuration))
            new.append(trial)
        trials.append(trial)
    return trials, new


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
