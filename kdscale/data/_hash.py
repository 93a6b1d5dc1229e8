"""SplitMix64 on tensors: random bits as a pure function of a key."""

from __future__ import annotations

from torch import Tensor

# SplitMix64's constants as two's complement, since torch's arithmetic is int64. Steele, Lea and
# Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64


def shift_right(x: Tensor, bits: int) -> Tensor:
    """Returns x shifted as if it were unsigned; torch's own shift copies the sign."""
    return x.bitwise_right_shift(bits).bitwise_and(2 ** (64 - bits) - 1)


def splitmix64(x: Tensor) -> Tensor:
    """Returns SplitMix64's output for each state: 64 well mixed bits, int64, x's shape."""
    x = x + _GAMMA
    x = (x ^ shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ shift_right(x, 31)
