from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.records import TrialRecord
from kdscale.search import Study
from kdscale.search._plan import cost, fewest_and_most, spared_epochs

from .simulate import Killed, Sweep
from .studies import make_study

EPOCHS = 6
SEEDS = 4
SPACE = {"alpha": {"min": 2, "max": 12}}
"""Nothing diverges, and the best lies at 8."""


def raced(method: str = "random", *, rungs: bool = False, **sections: Any) -> Study:
    defaults: dict[str, Any] = {
        "seeds": {"n": SEEDS, "policy": "race"},
        "parameters": SPACE,
        "search": {"method": method, "generation": 4},
        "budget": {"trials": 10 * SEEDS, "epochs": EPOCHS},
        "resources": {"cohort": 3},
        "rungs": {"eta": 2, "first": 2} if rungs else None,
    }
    return make_study(**(defaults | sections))


def trained(sweep: Sweep) -> dict[str, list[TrialRecord]]:
    """Returns by configuration the searched trials that were trained."""
    found: dict[str, list[TrialRecord]] = {}
    for trial in sweep.outcome():
        if trial.history and not trial.is_control:
            found.setdefault(trial.name.partition("-")[0], []).append(trial)
    return found


@pytest.mark.parametrize("method", ["random", "tpe"])
@pytest.mark.parametrize("rungs", [False, True])
def test_a_race_ends_with_every_trial_ended_and_the_winner_under_all_seeds(
    method: str, rungs: bool
) -> None:
    study = raced(method, rungs=rungs)
    sweep = Sweep(study, lanes=2)
    queue = sweep.run()
    assert queue.complete
    assert queue.idle
    trials = queue.ledger.trials
    assert len(trials) == study.trials
    assert {trial.state for trial in trials} == {"done", "pruned"}
    spared = [trial for trial in trials if trial.is_raced_out]
    assert spared
    assert all((t.attempt, t.history, t.value, t.student) == (0, (), None, None) for t in spared)
    runs = trained(sweep)
    for own in runs.values():
        assert [trial.seed for trial in own] == list(range(len(own)))
    best = max(runs.values(), key=lambda own: (len(own), own[0].value or 0.0))
    assert len(best) == SEEDS
    fewest, most = fewest_and_most(study)
    assert fewest <= sum(map(len, runs.values())) <= most <= study.trials
    assert {trial.state for trial in queue.ledger.controls} == {"done"}
    assert len(queue.ledger.controls) == SEEDS

    before, epochs = sweep.outcome(), sweep.disk.epochs_trained
    again = sweep.run()
    assert again.complete
    assert (sweep.storage.clock.ticks, sweep.disk.epochs_trained) == (0, epochs)
    assert sweep.outcome() == before


def test_the_reason_says_who_was_better_after_how_many_seeds_at_which_level() -> None:
    sweep = Sweep(raced())
    sweep.run()
    reasons = Counter(t.reason for t in sweep.outcome() if t.is_raced_out)
    pattern = r"raced out after [123] seeds?: surely no better than c00\d \(level 5%, tol"
    assert reasons
    assert all(re.match(pattern, reason) for reason in reasons)
    exact = Sweep(raced(seeds={"n": SEEDS, "policy": "race", "tolerance": 0}))
    exact.run()
    assert all("tolerance" not in trial.reason for trial in exact.outcome())


def test_rungs_compare_under_the_first_seed_alone() -> None:
    sweep = Sweep(raced(rungs=True))
    sweep.run()
    dropped = [trial for trial in sweep.outcome() if trial.reason.startswith("rung")]
    assert {trial.seed for trial in dropped} == {0}
    for trial in dropped:
        (alone,) = trained(sweep)[trial.name.partition("-")[0]]
        assert alone == trial
        reasons = {t.reason for t in sweep.outcome() if t.configuration == trial.configuration}
        rung = trial.reason.partition(":")[0]
        assert f"raced out after 1 seed: {trial.name} was stopped at a {rung}" in reasons
    assert all(len(t.history) == EPOCHS for own in trained(sweep).values() for t in own[1:])


def test_a_diverged_trial_ends_its_configuration_and_a_failed_one_does_not() -> None:
    space = {"alpha": {"values": [7, 7.5, 8, 8.5, 13.5]}}  # alpha above 13 diverges
    study = raced("grid", parameters=space, budget={"epochs": EPOCHS})
    sweep = Sweep(study)
    sweep.crashes = {"c002-s0": 9}
    assert sweep.run().complete
    runs = trained(sweep)
    assert [trial.reason[:8] for trial in runs["c004"]] == ["diverged"]
    others = {t.reason for t in sweep.outcome() if t.configuration == 4 and t.seed}
    assert others == {"raced out after 1 seed: c004-s0 diverged at epoch 3"}
    crashed = [trial.state for trial in sweep.outcome() if trial.configuration == 2]
    assert crashed[:2] == ["failed", "done"]


def test_a_search_that_learns_sees_means_that_are_fair() -> None:
    """Seed 0 shifts all alike: whoever was raced out after it must not look the better for it."""
    sweep = Sweep(raced("tpe", budget={"trials": 20 * SEEDS, "epochs": EPOCHS}))
    assert sweep.run().complete
    late = [own[0].parameters["alpha"] for own in trained(sweep).values()][8:]
    assert sum(abs(float(alpha) - 8.0) < 2.0 for alpha in late) > len(late) / 2


@given(
    kills=st.lists(st.integers(1, 250), max_size=3),
    lanes=st.integers(1, 4),
    seed=st.integers(0, 99),
    cohort=st.sampled_from([1, 2, 3, 16, "auto"]),
    method=st.sampled_from(["random", "tpe"]),
    rungs=st.booleans(),
    crashes=st.dictionaries(st.sampled_from(["c000-s0", "c004-s1"]), st.integers(1, 2)),
)
@settings(max_examples=10, deadline=None)
def test_nothing_that_happens_to_machines_changes_who_is_raced_out(
    kills: list[int],
    lanes: int,
    seed: int,
    cohort: int | str,
    method: str,
    rungs: bool,
    crashes: dict[str, int],
) -> None:
    undisturbed = Sweep(raced(method, rungs=rungs))
    undisturbed.run()
    study = raced(method, rungs=rungs, resources={"cohort": cohort})
    sweep = Sweep(study, lanes, Random(seed))
    sweep.crashes = dict(crashes)
    for kill_at in kills:
        try:
            sweep.run(kill_at)
        except Killed:
            continue
        break
    assert sweep.run().complete
    assert sweep.outcome() == undisturbed.outcome()


def test_killed_anywhere_it_ends_as_if_undisturbed() -> None:
    study = raced(search={"method": "tpe", "generation": 3}, budget={"trials": 24, "epochs": 2})
    undisturbed = Sweep(study)
    undisturbed.run()
    for kill_at in range(1, undisturbed.storage.clock.ticks, 17):
        sweep = Sweep(study)
        with pytest.raises(Killed):
            sweep.run(kill_at)
        sweep.run()
        assert sweep.outcome() == undisturbed.outcome(), kill_at


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_raised_budget_races_on_and_keeps_what_was_decided(method: str) -> None:
    sweep = Sweep(raced(method, budget={"trials": 7 * SEEDS, "epochs": EPOCHS}))
    sweep.run()
    before = {trial.name: trial for trial in sweep.outcome()}
    sweep.study = raced(method, budget={"trials": 12 * SEEDS, "epochs": EPOCHS})
    assert sweep.run().complete
    after = {trial.name: trial for trial in sweep.outcome()}
    assert before.items() <= after.items()
    assert len(after) == 12 * SEEDS + SEEDS


def test_the_plan_counts_what_a_race_may_train() -> None:
    assert fewest_and_most(make_study(seeds=2, budget={"trials": 8, "epochs": 4})) == (8, 8)
    assert fewest_and_most(raced()) == (10 + 3 + 7, 40)
    assert fewest_and_most(raced("tpe")) == (10 + 3 + 3, 40)
    halved = raced(rungs=True)  # of generations of 4, 4 and 2, one each is left
    assert fewest_and_most(halved) == (10 + 3 + 2, 10 + 3 * 3)
    # Under seed 0: 10 x 2 epochs, 5 x 2 and 3 x 2; then 3 configurations under 3 seeds; controls.
    assert cost(halved, 16).student_epochs == 36 + 3 * 3 * EPOCHS + SEEDS * EPOCHS
    sweep = Sweep(raced())
    sweep.run()
    spent = sum(len(trial.history) for trial in sweep.outcome())
    most = cost(sweep.study, 1).student_epochs
    assert spent == most - spared_epochs(sweep.study, sweep.outcome())
