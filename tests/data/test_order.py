from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.data import epoch_order


@given(n=st.integers(0, 500), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10_000))
@settings(deadline=None)
def test_every_image_comes_once_and_always_in_the_same_order(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(n))
    assert torch.equal(order, epoch_order(n, seed, epoch))


def test_seeds_and_epochs_have_their_own_order() -> None:
    keys = [(seed, epoch) for seed in range(4) for epoch in range(1, 5)]
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed, epoch in keys}
    assert len(orders) == len(keys)


def test_the_order_is_the_same_on_every_machine_and_numpy() -> None:
    # Written down once: a change would change the numbers of every study.
    assert epoch_order(8, seed=0, epoch=1).tolist() == ORDER


ORDER = [5, 3, 7, 2, 4, 1, 0, 6]
