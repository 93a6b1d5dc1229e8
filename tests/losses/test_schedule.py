"""How a term's weight changes over the epochs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.losses import Schedule

EPOCHS = 11


def factors(schedule: Schedule) -> list[float]:
    return [schedule.factor(epoch, EPOCHS) for epoch in range(1, EPOCHS + 1)]


def test_constant_is_one_from_the_first_epoch_to_the_last() -> None:
    assert factors(Schedule()) == [1.0] * EPOCHS


def test_warmup_is_mdistillers() -> None:
    assert factors(Schedule(warmup_epochs=4)) == [0.25, 0.5, 0.75, *[1.0] * 8]


def test_a_line_goes_to_the_final_factor() -> None:
    assert factors(Schedule("linear", final_factor=0.5)) == pytest.approx(
        [1 - 0.05 * step for step in range(EPOCHS)]
    )
    assert Schedule("linear", final_factor=3.0).factor(EPOCHS, EPOCHS) == 3.0


def test_a_cosine_is_half_way_in_the_middle_and_flat_at_the_ends() -> None:
    got = factors(Schedule("cosine"))
    assert got[5] == pytest.approx(0.5)
    assert (got[0], got[-1]) == (1.0, pytest.approx(0.0))
    assert got[0] - got[1] < 0.2 * (got[5] - got[6])


def test_outside_its_epochs_a_term_has_no_weight() -> None:
    got = factors(Schedule("linear", warmup_epochs=2, start_epoch=3, stop_epoch=6))
    assert got == pytest.approx([0, 0, 0.5, 2 / 3, 1 / 3, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(),
        Schedule(start_epoch=2),
        Schedule(stop_epoch=10),
        Schedule(warmup_epochs=5),
        Schedule("linear"),
        Schedule("linear", final_factor=0.1),
        Schedule("cosine"),
        Schedule("cosine", final_factor=2.0),
        Schedule("steps", steps="2 1"),
        Schedule("steps", steps="1 1 4 0 6 1"),
        Schedule("steps", steps="1 1 4 0.5"),
    ],
)
def test_it_says_whether_a_term_may_pause(schedule: Schedule) -> None:
    assert schedule.pauses == (0 in factors(schedule))


def test_one_epoch_alone() -> None:
    assert Schedule("cosine", start_epoch=4, stop_epoch=4).factor(4, EPOCHS) == 1.0


def test_the_rule_for_its_ends() -> None:
    assert Schedule(start_epoch=5).broken_rule() is None
    assert Schedule(start_epoch=5, stop_epoch=5).broken_rule() is None
    broken = Schedule(start_epoch=5, stop_epoch=4).broken_rule()
    assert broken == ("stop_epoch", "must be >= start_epoch (5), or 0")


def test_steps_hold_until_the_next_one() -> None:
    got = factors(Schedule("steps", steps="2 0.5 4 1 10 0.1"))
    assert got == [0, 0.5, 0.5, *[1] * 6, 0.1, 0.1]


@pytest.mark.parametrize("steps", ["1", "1 1 1 2", "5 1 2 1", "1.5 1", "1 -1"])
def test_the_rule_for_steps(steps: str) -> None:
    broken = Schedule("steps", steps=steps).broken_rule()
    assert broken == ("steps", "must be pairs of ascending whole epochs and factors >= 0")


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.floats(0, 1),
    st.integers(0, 20),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_a_decay_never_leaves_0_to_1(
    kind: str, final: float, warmup: int, epoch: int, epochs: int
) -> None:
    schedule = Schedule(kind, final, warmup)  # type: ignore[arg-type]
    assert 0 <= schedule.factor(min(epoch, epochs), epochs) <= 1
