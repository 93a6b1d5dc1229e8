import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.losses import METHODS, kd, ttm

from .draws import draw


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_gamma_one_is_kd_at_temperature_one(seed: int) -> None:
    z_s, z_t, _ = draw(seed)
    torch.testing.assert_close(ttm(z_s, z_t, gamma=1.0), kd(z_s, z_t, temperature=1.0))


def test_teacher_is_a_normalised_power() -> None:
    z_s, z_t, _ = draw(1)
    powers = z_t.softmax(1) ** 0.3
    q = powers / powers.sum(1, keepdim=True)
    expected = F.kl_div(z_s.log_softmax(1), q, reduction="batchmean")
    torch.testing.assert_close(ttm(z_s, z_t, gamma=0.3), expected)


def test_zero_where_the_student_is_the_tempered_teacher() -> None:
    _, z_t, _ = draw(2)
    assert abs(ttm(0.2 * z_t, z_t, gamma=0.2).item()) < 1e-12
    assert ttm(z_t, z_t, gamma=0.2) > 0.1


def test_exponents_beyond_one_are_no_temperatures() -> None:
    (gamma,) = METHODS["ttm"].hyperparameters
    assert gamma.broken_rule(1.5) == "must be <= 1"
    assert gamma.broken_rule(0.0) == "must be > 0"
