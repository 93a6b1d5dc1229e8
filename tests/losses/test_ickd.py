import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import ickd

from .pairs import trial_of


def by_definition(f_s: Tensor, f_t: Tensor) -> Tensor:
    gram_s, gram_t = (F.normalize(f.flatten(2) @ f.flatten(2).mT, dim=2) for f in (f_s, f_t))
    return (gram_s - gram_t).square().sum() / (f_s.shape[0] * f_s.shape[1])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 12),
    grid_s=st.integers(1, 4),
    grid_t=st.integers(1, 4),
)
def test_both_forms_equal_the_definition(
    seed: int, channels: int, grid_s: int, grid_t: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    f_s = torch.randn(2, channels, grid_s, grid_s, generator=generator, dtype=torch.float64)
    f_t = torch.randn(2, channels, grid_t, grid_t, generator=generator, dtype=torch.float64)
    f_s.requires_grad_()
    got, expected = ickd(f_s, f_t), by_definition(f_s, f_t)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(got, f_s), torch.autograd.grad(expected, f_s), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("channels", [3, 40])
def test_zero_at_student_equal_teacher_and_blind_to_scale(channels: int) -> None:
    f_t = torch.randn(2, channels, 4, 4, dtype=torch.float64)
    f_s = torch.randn_like(f_t)
    assert abs(ickd(f_t, f_t)) < 1e-13
    assert abs(ickd(7 * f_t, f_t)) < 1e-13
    torch.testing.assert_close(ickd(0.01 * f_s, 30 * f_t), ickd(f_s, f_t))


@pytest.mark.parametrize("channels", [3, 40])
def test_dead_channels_are_rows_of_zeros(channels: int) -> None:
    f_s, f_t = torch.randn(2, 2, channels, 4, 4, dtype=torch.float64)
    f_t[:, 0] = 0
    f_s[0, 1] = 0
    f_s.requires_grad_()
    got = ickd(f_s, f_t)
    torch.testing.assert_close(got, by_definition(f_s, f_t))
    got.backward()
    assert f_s.grad is not None
    assert torch.isfinite(f_s.grad).all()


def test_unequal_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="one batch and number of channels"):
        ickd(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))


def test_the_student_is_embedded_even_at_equal_channels() -> None:
    trial = trial_of("ickd")
    assert isinstance(trial.term, torch.nn.Module)
    assert [tuple(p.shape) for p in trial.term.parameters()] == [(8, 6, 1, 1), (8,), (8,)]
