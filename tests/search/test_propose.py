from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers._tpe.sampler import _split_trials

from kdscale.records import TrialRecord, TrialState, Value
from kdscale.search import Study
from kdscale.search._propose import Proposal, _outcome, propose

from .studies import make_study

METHODS = ["tpe", "gp", "cmaes"]
SPACE: dict[str, Any] = {
    "alpha": {"min": 0, "max": 10},
    "beta": {"min": 0.01, "max": 10, "distribution": "log_uniform_values"},
}
Known = list[list[TrialRecord]]


def study_with(method: str, seed: int = 0, **sections: Any) -> Study:
    search = {"method": method, "seed": seed} | sections.pop("search", {})
    return make_study(**({"parameters": SPACE, "seeds": 2, "search": search} | sections))


def trial(
    number: int,
    parameters: Mapping[str, Value],
    value: float | None,
    *,
    seed: int = 0,
    state: TrialState = "done",
    epochs: int = 4,
    reason: str = "",
) -> TrialRecord:
    known = value is not None
    return TrialRecord(
        number=number,
        configuration=number,
        seed=seed,
        parameters=parameters,
        state=state,
        value=value if state in ("done", "pruned") else None,
        history=tuple(
            {"epoch": epoch, "val_accuracy": value or 0.0, "val_loss": value or 0.0}
            for epoch in range(1, epochs + 1)
            if known
        ),
        reason=reason,
    )


def search(
    study: Study, count: int, score: Callable[[Mapping[str, Any]], float]
) -> tuple[Known, list[Mapping[str, Any]]]:
    """Returns what is known after so many configurations, one after the other."""
    known: Known = []
    memories: list[Mapping[str, Any]] = []
    for number in range(count):
        proposal = propose(study, known, number, memories)
        value = score(proposal.parameters)
        known.append([trial(number, proposal.parameters, value, seed=seed) for seed in (0, 1)])
        memories.append(proposal.memory)
    return known, memories


def far_from_7(parameters: Mapping[str, Any]) -> float:
    return 100.0 - abs(float(parameters["alpha"]) - 7.0) - float(parameters["beta"])


@pytest.mark.parametrize("method", METHODS)
def test_a_proposal_is_a_function_of_the_study_and_what_is_known(method: str) -> None:
    study = study_with(method, seed=3)
    known, memories = search(study, 13, far_from_7)  # cmaes learns at 7 and at 13
    first = propose(study, known, 13, memories)
    assert propose(study_with(method, seed=3), known, 13, memories) == first
    assert propose(study_with(method, seed=4), known, 13, memories) != first
    better = [*known[:-1], [replace(one, value=200.0) for one in known[-1]]]
    assert propose(study, better, 13, memories) != first


@pytest.mark.parametrize("method", METHODS)
def test_proposals_asked_together_differ(method: str) -> None:
    study = study_with(method)
    known, memories = search(study, 8, far_from_7)
    proposals = []
    for number in range(8, 14):
        proposal = propose(study, known, number, memories)
        proposals.append(proposal.parameters)
        known.append([trial(number, proposal.parameters, None, state="waiting")])
        memories.append(proposal.memory)
    assert len({str(dict(parameters)) for parameters in proposals}) == 6


@pytest.mark.parametrize("method", METHODS)
def test_a_search_finds_what_is_good(method: str) -> None:
    known, _ = search(study_with(method), 40, far_from_7)
    values = [one[0].value or 0.0 for one in known]
    assert sum(values[-10:]) > sum(values[:10])
    assert max(values) > 99.0


@pytest.mark.parametrize("method", METHODS)
def test_a_search_with_goal_minimize_finds_the_small(method: str) -> None:
    study = study_with(method, metric={"name": "val_loss", "goal": "minimize"})
    known, _ = search(study, 40, lambda parameters: -far_from_7(parameters))
    values = [one[0].value or 0.0 for one in known]
    assert sum(values[-10:]) < sum(values[:10])


@pytest.mark.parametrize("method", ["tpe", "gp"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), known=st.integers(0, 15), score=st.floats(-100, 100))
def test_proposals_lie_in_the_space(method: str, seed: int, known: int, score: float) -> None:
    space = SPACE | {
        "depth": {"min": 3, "max": 9, "q": 2},
        "temperature": {"values": [1, 2, 4]},
        "include_group": {"values": [True, False]},
    }
    check_in_space(study_with(method, seed, parameters=space), known, score)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), known=st.integers(0, 15), score=st.floats(-100, 100))
def test_proposals_of_cmaes_lie_in_the_space(seed: int, known: int, score: float) -> None:
    space = SPACE | {"depth": {"min": 3, "max": 9, "q": 2}}
    check_in_space(study_with("cmaes", seed, parameters=space), known, score)


def check_in_space(study: Study, known: int, score: float) -> None:
    trials: Known = []
    for number in range(known):
        point = propose(study, [], number, []).parameters  # drawn from the prior
        trials.append([trial(number, point, score * number)])
    proposal = propose(study, trials, known, [{}] * known)
    assert list(proposal.parameters) == [axis.name for axis in study.axes]
    for axis in study.axes:
        assert axis.contains(proposal.parameters[axis.name]), axis.name
    study.resolve(proposal.parameters)  # refuses what is out of a hyperparameter's bounds


@pytest.mark.parametrize("method", METHODS)
def test_the_baseline_comes_first(method: str) -> None:
    baseline = {"beta": 1.0, "alpha": 9.0}
    study = study_with(method, search={"baseline": baseline})
    assert propose(study, [], 0, []) == Proposal({"alpha": 9.0, "beta": 1.0})
    known = [[trial(0, {"alpha": 9.0, "beta": 1.0}, 50.0)]]
    assert propose(study, known, 1, [{}]).parameters != baseline


@pytest.mark.parametrize("method", METHODS)
def test_a_sampler_sees_the_mean_over_seeds_alone(method: str) -> None:
    study = study_with(method)
    known, memories = search(study, 12, far_from_7)
    noisy = [
        [replace(one, value=(one.value or 0.0) + noise, history=noisy_history(one, noise))
         for one, noise in zip(trials, (8.0, -8.0), strict=True)]
        for trials in known
    ]  # fmt: skip
    assert propose(study, noisy, 12, memories) == propose(study, known, 12, memories)


def noisy_history(one: TrialRecord, noise: float) -> tuple[Mapping[str, float], ...]:
    return tuple({**row, "val_accuracy": row["val_accuracy"] + noise} for row in one.history)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["pruned", "diverged"])
def test_what_was_pruned_or_diverged_counts_as_bad(method: str, how: str) -> None:
    """Values rise with alpha up to 5, beyond which every trial ends early: at 5 lies the best."""
    study = study_with(method)
    known: Known = []
    memories: list[Mapping[str, Any]] = []
    for number in range(40):
        proposal = propose(study, known, number, memories)
        alpha = float(proposal.parameters["alpha"])
        if alpha < 5.0:
            one = trial(number, proposal.parameters, 50.0 + alpha)
        elif how == "pruned":
            one = trial(number, proposal.parameters, 49.0, state="pruned", epochs=1)
        else:
            reason = "diverged at epoch 1 (ldrld is not finite)"
            one = trial(number, proposal.parameters, None, state="pruned", reason=reason)
        known.append([one])
        memories.append(proposal.memory)
    assert sum(one[0].state == "pruned" for one in known[:10]) >= 3
    assert sum(one[0].state == "pruned" for one in known[-15:]) <= 8
    assert sum(float(one[0].parameters["alpha"]) > 2.5 for one in known[-15:]) >= 11


@pytest.mark.parametrize("method", METHODS)
def test_a_search_in_which_everything_diverges_goes_on(method: str) -> None:
    study = study_with(method)
    known: Known = []
    memories: list[Mapping[str, Any]] = []
    for number in range(12):
        proposal = propose(study, known, number, memories)
        known.append([trial(number, proposal.parameters, None, state="pruned", reason="diverged")])
        memories.append(proposal.memory)
    assert len({str(dict(one[0].parameters)) for one in known}) == 12


def outcome(*trials: TrialRecord) -> tuple[str, list[float], dict[int, float]]:
    found = _outcome(study_with("tpe"), trials, {"kept": 1})
    assert found.system_attrs == {"kept": 1}
    return found.state.name, found.values or [], found.intermediate_values


POINT = {"alpha": 1.0, "beta": 1.0}


def test_a_configuration_is_one_outcome_of_all_its_seeds() -> None:
    done = trial(0, POINT, 4.0, epochs=2)
    better = trial(0, POINT, 6.0, seed=1, epochs=2)
    dropped = trial(0, POINT, 2.0, seed=1, state="pruned", epochs=1)
    diverged = trial(0, POINT, None, seed=1, state="pruned", reason="diverged at epoch 1 (ldrld)")
    crashed = trial(0, POINT, None, seed=1, state="failed", reason="failed 3 times: the worker")
    waiting = trial(0, POINT, None, seed=1, state="waiting")
    assert outcome(done, better) == ("COMPLETE", [5.0], {1: 5.0, 2: 5.0})
    assert outcome(done, dropped) == ("PRUNED", [], {1: 3.0})
    assert outcome(done, diverged) == ("PRUNED", [], {})
    assert outcome(diverged, diverged) == ("PRUNED", [], {})
    assert outcome(done, waiting) == ("RUNNING", [], {})
    assert outcome(diverged, waiting) == ("RUNNING", [], {})
    assert outcome(crashed, crashed) == ("FAIL", [], {})


def test_a_design_is_not_proposed() -> None:
    with pytest.raises(ValueError, match="it has a design"):
        propose(study_with("random"), [], 0, [])


def test_tpe_takes_what_diverged_late_for_worse_than_what_was_dropped_early() -> None:
    study = study_with("tpe")
    reason = "diverged at epoch 4 (ldrld is not finite)"
    late = [trial(0, POINT, 99.0, epochs=3, state="pruned", reason=reason)]
    early = [
        trial(
            1, {"alpha": 2.0, "beta": 1.0}, 1.0, epochs=1, state="pruned", reason="rung at epoch 1"
        )
    ]
    outcomes = [_outcome(study, trials, {}) for trials in (late, early)]
    copy = optuna.create_study(direction="maximize")
    below, above = _split_trials(copy, outcomes, n_below=1)
    assert [one.params for one in below] == [outcomes[1].params]
    assert len(above) == 1
