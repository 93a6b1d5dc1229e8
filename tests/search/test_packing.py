from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from kdscale.search._packing import Place, Waiting, next_cohort

places = st.builds(Place, st.integers(0, 3), st.sampled_from([0, 2, 4, 5]))
counts = st.builds(Waiting, st.integers(0, 40), st.integers(0, 1)).filter(lambda w: w.all > 0)


@given(
    waiting=st.dictionaries(places, counts, min_size=1),
    size=st.integers(1, 17),
    lanes=st.integers(1, 9),
)
def test_lanes_are_filled_and_no_cohort_is_too_large(
    waiting: dict[Place, Waiting], size: int, lanes: int
) -> None:
    left = dict(waiting)
    handed_out = []
    for free in range(lanes, 0, -1):
        if not left:
            break
        place, count = next_cohort(left, size=size, lanes=free, epochs=8)
        assert 1 <= count <= min(size, left[place].all)
        handed_out.append(count)
        distilled = min(count, left[place].distilled)
        rest = Waiting(left[place].distilled - distilled, left[place].all - left[place].distilled)
        if count > distilled:
            rest = Waiting(rest.distilled, 0)
        left[place] = rest
        if not rest.all:
            del left[place]
    everyone = sum(there.all for there in waiting.values())
    assert len(handed_out) == min(lanes, everyone, len(handed_out) + len(left) * lanes)
    if len(handed_out) < lanes:  # a lane is idle only when nothing is left
        assert sum(handed_out) == everyone


def test_full_cohorts_that_are_furthest_come_first() -> None:
    waiting = {Place(0, 0): Waiting(20), Place(0, 2): Waiting(8), Place(1, 4): Waiting(3)}
    assert next_cohort(waiting, size=8, lanes=1, epochs=8) == (Place(0, 2), 8)


def test_survivors_wait_for_more_where_there_is_other_work_of_their_seed() -> None:
    waiting = {Place(0, 2): Waiting(4), Place(0, 0): Waiting(5)}
    assert next_cohort(waiting, size=8, lanes=1, epochs=8) == (Place(0, 0), 5)


def test_where_nothing_is_full_the_longest_work_comes_first() -> None:
    waiting = {Place(0, 4): Waiting(4), Place(1, 2): Waiting(4), Place(2, 0, ""): Waiting(0, 1)}
    assert next_cohort(waiting, size=8, lanes=1, epochs=8) == (Place(1, 2), 4)


@given(trials=st.integers(1, 40), size=st.integers(1, 16), lanes=st.integers(1, 8))
def test_one_seed_is_shared_out_evenly(trials: int, size: int, lanes: int) -> None:
    waiting = {Place(0, 0): Waiting(trials)}
    _, count = next_cohort(waiting, size=size, lanes=lanes, epochs=8)
    parts = max(ceil(trials / size), min(lanes, trials))
    assert count == ceil(trials / parts)
