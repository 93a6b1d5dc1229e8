from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kdscale.training._clock import Account, device_clock, from_bytes, to_bytes

SECONDS = st.floats(1e-4, 10.0)


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), max_size=9))
def test_the_parts_of_an_account_add_up(steps: list[tuple[float, float, float]]) -> None:
    account = Account()
    for student, teacher, data in steps:
        account.charge(student, teacher, data)
    parts = account.student_seconds, account.teacher_seconds, account.data_seconds
    assert account.compute_seconds == sum(parts)


@given(step=SECONDS, budget=st.floats(1.0, 1000.0))
def test_steps_of_one_length_stop_within_half_a_step(step: float, budget: float) -> None:
    account = Account()
    for _ in range(3):
        account.charge(step, 0.0, 0.0)
    taken = 3
    while not account.reaches(budget):
        steps = account.steps_unwatched(budget)
        assert steps == 1 or step * (taken + steps) <= budget
        account.charge(step, 0.0, 0.0, steps=steps)
        taken += steps
    assert taken <= 3 or abs(account.compute_seconds - budget) <= 0.5 * step + 1e-6


@given(st.dictionaries(st.text(max_size=3), st.builds(Account, st.integers(0, 9), SECONDS)))
def test_accounts_travel_without_rounding(accounts: dict[str, Account]) -> None:
    assert from_bytes(to_bytes(accounts)) == accounts


def test_a_row_holds_every_part() -> None:
    account = Account(steps=6)
    account.charge(1.0, 2.0, 4.0)
    row = account.metrics(steps_an_epoch=4)
    assert (row["compute_seconds"], row["steps"], row["data_epochs"]) == (7.0, 6, 1.5)
    assert {"student_seconds", "teacher_seconds", "data_seconds", "setup_seconds"} <= set(row)


def test_the_clock_of_a_cpu_goes_on() -> None:
    import torch

    clock = device_clock(torch.device("cpu"))
    assert clock() <= clock()
