"""The order of the training images in an epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kdscale.data._split import Integers


def random_permutation(n: int, key: tuple[int, int]) -> Integers:
    """Returns a permutation of 0..n-1, int64 ``[n]``, that is a function of n and the key alone.

    It sorts the raw output of Philox, which NumPy keeps the same in all versions, unlike the
    output of ``Generator.permutation``.

    Args:
        n: How many.
        key: Two numbers from 0 to 2**64 - 1.
    """
    draws = np.random.Philox(key=np.array(key, dtype=np.uint64)).random_raw(n)
    return np.argsort(draws, kind="stable")


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Returns the order in which an epoch visits n images, a permutation, int64 ``[n]``.

    Args:
        n: Number of training images.
        seed: The trial's seed, at least 0.
        epoch: The epoch, from 1.
    """
    return torch.from_numpy(random_permutation(n, (seed, epoch)))
