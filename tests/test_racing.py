from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import pytest
from analysis.statistics.tables import tables
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.analysis.statistics import Results
from kdscale.analysis.statistics._additive import additive_fit
from kdscale.racing import PILOTS, Outcome, Race, Stop, fair_means, fit, race

Truth = dict[tuple[int, int], Outcome]


def truth(means: list[float], seeds: int, rng: int, sd: float = 0.2) -> Truth:
    """Returns how all trials would end: a mean for each configuration, a shift for each seed."""
    draw = np.random.default_rng(rng)
    values = np.array(means)[:, None] + draw.normal(0.0, 0.3, seeds)
    values += draw.normal(0.0, sd, values.shape)
    return {
        (number, seed): float(value)
        for number, row in enumerate(values)
        for seed, value in enumerate(row)
    }


def raced(whole: Truth, order: Random | None = None, **how: Any) -> tuple[Race, Truth]:
    """Returns a race's end and what it trained: in rounds, or a few trials at a time."""
    numbers = sorted({number for number, _ in whole} - set(how.get("settled", ())))
    seeds = sorted({seed for _, seed in whole})
    known = {key: end for key, end in whole.items() if key[0] in how.get("settled", ())}
    while not (step := race(known, numbers, seeds, **how)).done:
        items = list(step.run.items())
        if order is not None:
            items = order.sample(items, order.randint(1, len(items)))
        assert not known.keys() & set(items)
        known |= {item: whole[item] for item in items}
    return step, known


def test_it_starts_with_one_seed_for_all() -> None:
    assert race({}, (0, 1, 2), (5, 6)) == Race({0: 5, 1: 5, 2: 5}, {}, None)
    assert race({}, (), (5, 6)).done


def test_the_best_of_the_first_seed_show_the_noise() -> None:
    whole = truth([*np.linspace(60, 61, 20)], 3, rng=0)
    first = {key: end for key, end in whole.items() if key[1] == 0}
    step = race(first, range(20), range(3))
    assert set(step.run.values()) == {1}
    assert sorted(step.run) == sorted(sorted(range(20), key=lambda n: -first[n, 0])[:PILOTS])  # type: ignore[operator]


def test_the_winner_has_all_seeds_and_the_others_say_who_beat_them() -> None:
    step, known = raced(truth([60.0, 70.0, 65.0, 60.0], 5, rng=0))
    assert step.leader == 1
    assert [seed for number, seed in known if number == 1] == [0, 1, 2, 3, 4]
    assert step.stopped[0] == Stop(2, 1)
    assert len(known) < 20


def test_a_failed_trial_is_a_gap_and_an_out_one_ends_its_configuration() -> None:
    whole = truth([70.0, 70.0, 70.0], 4, rng=1)
    whole[0, 1], whole[2, 1] = "lost", "out"
    step, known = raced(whole)
    assert step.stopped[2] == Stop(2, None)
    assert (0, 2) in known
    assert (2, 2) not in known


def test_where_all_fail_all_seeds_are_tried() -> None:
    lost: Truth = {(number, seed): "lost" for number in range(3) for seed in range(3)}
    step, known = raced(lost)
    assert (step, len(known)) == (Race({}, {}, None), 9)


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [[1.0, 1.0], [2.0, 2.0]]])
def test_without_noise_nobody_is_stopped(values: list[list[float]]) -> None:
    whole = {(n, s): value for n, row in enumerate(values) for s, value in enumerate(row)}
    step, known = raced(whole)
    assert (step.stopped, step.leader, known) == ({}, 1, whole)


def test_settled_configurations_are_rivals_and_get_no_seed() -> None:
    whole = truth([70.0] * 8 + [60.0, 60.5, 75.0], 4, rng=2)
    step, known = raced(whole, settled=range(8))
    assert step.leader == 10
    assert len(known) - 8 * 4 == 1 + 1 + 4  # the noise is known: nobody needs a second seed for it
    assert {step.stopped[number].after for number in (8, 9)} == {1}


@given(
    means=st.lists(st.floats(69.0, 70.0), min_size=1, max_size=14),
    seeds=st.integers(1, 6),
    rng=st.integers(0, 99),
    gaps=st.dictionaries(
        st.tuples(st.integers(0, 13), st.integers(0, 5)), st.sampled_from(["lost", "out"])
    ),
)
@settings(max_examples=40, deadline=None)
def test_what_is_trained_does_not_depend_on_who_ends_first_nor_on_what_else_is_known(
    means: list[float], seeds: int, rng: int, gaps: Mapping[tuple[int, int], Outcome]
) -> None:
    whole = truth(means, seeds, rng)
    whole |= {key: end for key, end in gaps.items() if key in whole}  # type: ignore[misc]
    step, known = raced(whole)
    for order in range(3):
        assert raced(whole, Random(order)) == (step, known)
    assert race(whole, range(len(means)), range(seeds)) == step  # all seeds known beforehand
    for number in range(len(means)):
        had = sorted(seed for other, seed in known if other == number)
        assert had == list(range(len(had)))
        assert (number in step.stopped) or len(had) == seeds


def test_the_best_is_seldom_lost_to_a_worse_one() -> None:
    """A needle among equal ones: about as hard as it gets."""
    lost = 0
    for rng in range(100):
        means = [70.0] * 15 + [70.4]
        step, _ = raced(truth(means, 5, rng))
        lost += 15 in step.stopped
    assert lost / 100 <= 0.05


def test_a_collapse_does_not_hide_what_the_others_show() -> None:
    whole = truth([*np.linspace(69.0, 71.0, 12)], 5, rng=3)
    step, known = raced(whole)
    collapsed: Truth = {(12, seed): end for seed, end in enumerate((70.5, 7.0, 65.0, 9.0, 1.0))}
    with_it, all_known = raced(whole | collapsed)
    assert with_it.leader == step.leader
    assert with_it.stopped[12].after == 2
    assert len(all_known) <= len(known) + PILOTS  # 62 where its noise is taken for theirs


@given(tables())
def test_the_fit_is_that_of_least_squares(results: Results) -> None:
    ours, theirs = fit(results.layout.values), additive_fit(results.layout)
    assert ours.df == theirs.residual_df
    if ours.df:
        assert ours.variance == pytest.approx(theirs.residual_variance, abs=1e-9)
    connected = np.array(theirs.component) == theirs.component[0]
    there = ours.effects - ours.effects[0]
    assert there[connected] == pytest.approx((theirs.effects - theirs.effects[0])[connected])
    wanted = [theirs.difference_variance(row, 0) for row in range(1, len(there))]
    seen = ours.difference_variance(0)[1:]
    assert seen[connected[1:]] == pytest.approx(np.array(wanted)[connected[1:]], abs=1e-9)


def test_fair_means_take_out_what_seeds_do() -> None:
    scores = {(0, 0): 70.0, (0, 1): 72.0, (1, 0): 69.0, (1, 1): 71.0, (2, 0): 68.0}
    found = fair_means(scores)
    assert found[0] - found[2] == pytest.approx(2.0)
    assert found[0] == pytest.approx(71.0)
