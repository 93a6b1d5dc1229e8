import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.losses import kd, ttm, wttm

from .draws import draw


def test_gamma_one_is_kd_at_temperature_one() -> None:
    z_s, z_t, _ = draw(1)
    torch.testing.assert_close(wttm(z_s, z_t, gamma=1.0), kd(z_s, z_t, temperature=1.0))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), gamma=st.floats(0.1, 1))
def test_is_the_mean_of_ttm_weighted_by_the_power_sum(seed: int, gamma: float) -> None:
    z_s, z_t, _ = draw(seed)
    weights = (z_t.softmax(1) ** gamma).sum(1)
    assert (weights >= 1 - 1e-12).all()
    alone = [ttm(z_s[b : b + 1], z_t[b : b + 1], gamma=gamma) for b in range(len(z_s))]
    expected = (weights * torch.stack(alone)).mean()
    torch.testing.assert_close(wttm(z_s, z_t, gamma=gamma), expected)


@pytest.mark.parametrize(("sureness", "weight"), [(1e4, 1.0), (0.0, 7**0.8)])
def test_a_sure_teacher_weighs_one_and_a_uniform_one_most(sureness: float, weight: float) -> None:
    z_s, _, y = draw(3)
    z_t = sureness * torch.eye(7, dtype=torch.float64)[y]
    expected = weight * ttm(z_s, z_t, gamma=0.2)
    torch.testing.assert_close(wttm(z_s, z_t, gamma=0.2), expected)
