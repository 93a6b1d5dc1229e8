from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.search._rungs import Halving

from .studies import make_study

Curves = dict[str, list[float]]
NAMES = [f"c{number:03d}-s0" for number in range(9)]


def rows(curve: Sequence[float]) -> list[Mapping[str, float]]:
    return [{"epoch": epoch, "val_loss": value} for epoch, value in enumerate(curve, start=1)]


def dropped(
    curves: Curves,
    going: Sequence[str] | None = None,
    *,
    epochs: tuple[int, ...] = (2, 4),
    eta: int = 2,
    goal: Literal["maximize", "minimize"] = "maximize",
) -> dict[str, str]:
    rule = Halving(epochs, eta, "val_loss", goal)
    return rule({name: rows(curve) for name, curve in curves.items()}, going or list(curves))


def test_the_better_half_goes_on_and_the_others_learn_their_rank() -> None:
    curves = {"c000-s0": [0.0, 1.0], "c001-s0": [9.0, 3.0], "c002-s0": [9.0, 2.0]}
    assert dropped(curves) == {
        "c002-s0": "rung at epoch 2: rank 2 of 3",
        "c000-s0": "rung at epoch 2: rank 3 of 3",
    }


def test_with_goal_minimize_the_smallest_goes_on() -> None:
    curves = {"c000-s0": [1.0, 1.0], "c001-s0": [1.0, 3.0]}
    assert set(dropped(curves, goal="minimize")) == {"c001-s0"}
    assert set(dropped(curves, goal="maximize")) == {"c000-s0"}


def test_eta_is_the_factor_between_rungs() -> None:
    curves = {name: [0.0, float(number)] for number, name in enumerate(NAMES)}
    assert set(dropped(curves, eta=3)) == set(NAMES[:6])
    assert set(dropped(curves, eta=100)) == set(NAMES[:8])  # one goes on at least


def test_of_equals_the_lower_configuration_goes_on_whatever_the_order_of_the_histories() -> None:
    equal = {name: [1.0, 1.0] for name in ("c1000-s0", "c999-s0", "c010-s0", "c002-s0")}
    assert set(dropped(equal)) == {"c999-s0", "c1000-s0"}


def test_a_rung_waits_for_every_trial_in_training() -> None:
    curves = {"c000-s0": [1.0, 5.0], "c001-s0": [1.0, 4.0], "c002-s0": [1.0]}
    assert dropped(curves) == {}
    assert set(dropped(curves | {"c002-s0": [1.0, 9.0]})) == {"c000-s0", "c001-s0"}


def test_a_later_rung_counts_only_those_that_passed_the_earlier_one() -> None:
    curves = {
        "c000-s0": [0.0, 4.0, 4.0, 1.0],
        "c001-s0": [0.0, 3.0, 3.0, 2.0],
        "c002-s0": [0.0, 2.0],
        "c003-s0": [0.0, 1.0],
    }
    assert dropped(curves, going=["c000-s0", "c001-s0"]) == {
        "c002-s0": "rung at epoch 2: rank 3 of 4",
        "c003-s0": "rung at epoch 2: rank 4 of 4",
        "c000-s0": "rung at epoch 4: rank 2 of 2",
    }


def test_a_trial_that_failed_before_a_rung_takes_no_part_in_it() -> None:
    curves = {"c000-s0": [9.0], "c001-s0": [], "c002-s0": [1.0, 1.0], "c003-s0": [1.0, 2.0]}
    assert dropped(curves, going=["c002-s0", "c003-s0"]) == {
        "c002-s0": "rung at epoch 2: rank 2 of 2"
    }


def test_a_trial_alone_passes_every_rung() -> None:
    assert dropped({"c000-s0": [0.0, 0.0, 0.0, 0.0]}) == {}


def test_nothing_is_dropped_before_the_first_rung() -> None:
    assert dropped({"c000-s0": [0.0], "c001-s0": [1.0]}) == {}
    assert dropped({}) == {}


values = st.sampled_from([0.0, 1.0, 2.0, 3.0])  # few, so that ties occur
full_curves = st.lists(st.lists(values, min_size=8, max_size=8), min_size=1, max_size=9)


def trained(curves: Curves, rule: Halving, epochs: int) -> tuple[Curves, dict[str, str]]:
    """Returns what a cohort shows after so many epochs, asking the rule after each."""
    seen: Curves = {name: [] for name in curves}
    stopped: dict[str, str] = {}
    for epoch in range(epochs):
        for name in seen:
            if name not in stopped:
                seen[name].append(curves[name][epoch])
        going = set(seen) - set(stopped)
        stopped |= rule({name: rows(curve) for name, curve in seen.items()}, going)
    return seen, stopped


@given(
    curves=full_curves,
    eta=st.integers(2, 4),
    first=st.integers(1, 3),
    goal=st.sampled_from(["maximize", "minimize"]),
    pause=st.integers(0, 8),
    order=st.randoms(use_true_random=False),
)
def test_decisions_are_repeated_by_a_restart_with_longer_histories(
    curves: list[list[float]],
    eta: int,
    first: int,
    goal: Literal["maximize", "minimize"],
    pause: int,
    order: object,
) -> None:
    rungs = tuple(first * eta**power for power in range(4) if first * eta**power < 8)
    rule = Halving(rungs, eta, "val_loss", goal)
    named = dict(zip(NAMES, curves, strict=False))
    _, early = trained(named, rule, pause)
    seen, late = trained(named, rule, 8)
    assert early.items() <= late.items()
    # A restart knows histories alone, in whatever order, and asks once.
    shuffled = list(seen)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    again = rule({name: rows(seen[name]) for name in shuffled}, set(seen) - set(late))
    assert again == late
    # What each rung leaves is the textbook's number.
    left = len(named)
    for rung in rungs:
        left = max(1, left // eta)
        assert sum(len(curve) > rung for curve in seen.values()) == left


@given(curves=full_curves, behind=st.integers(0, 8))
def test_one_trial_behind_holds_up_every_decision_from_its_rung_on(
    curves: list[list[float]], behind: int
) -> None:
    rule = Halving((2, 4), 2, "val_loss", "maximize")
    named = dict(zip(NAMES, curves, strict=False))
    waiting = {name: rows(curve[:4]) for name, curve in named.items()}
    name = NAMES[behind % len(named)]
    waiting[name] = waiting[name][:1]
    assert rule(waiting, set(named)) == {}


@pytest.mark.parametrize(("first", "epochs", "rungs"), [(1, 8, (1, 2, 4)), (3, 12, (3, 6))])
def test_a_studys_rungs_end_before_its_last_epoch(
    first: int, epochs: int, rungs: tuple[int, ...]
) -> None:
    study = make_study(rungs={"eta": 2, "first": first}, budget={"trials": 8, "epochs": epochs})
    assert study.rung_epochs == rungs
