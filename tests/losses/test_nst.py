import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import nst

from .pairs import trial_of


def by_definition(f_s: Tensor, f_t: Tensor) -> Tensor:
    s, t = (F.normalize(f.flatten(2), dim=2) for f in (f_s, f_t))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(1) * b.unsqueeze(2)).sum(-1).square().mean()

    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    channels_s=st.integers(1, 12),
    channels_t=st.integers(1, 12),
    grid=st.integers(1, 4),
)
def test_both_forms_equal_the_definition(
    seed: int, channels_s: int, channels_t: int, grid: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    f_s = torch.randn(2, channels_s, grid, grid, generator=generator, dtype=torch.float64)
    f_t = torch.randn(2, channels_t, grid, grid, generator=generator, dtype=torch.float64)
    f_s.requires_grad_()
    got, expected = nst(f_s, f_t), by_definition(f_s, f_t)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(
        torch.autograd.grad(got, f_s), torch.autograd.grad(expected, f_s), rtol=1e-7, atol=1e-11
    )


@pytest.mark.parametrize("channels", [3, 40])
def test_zero_at_equal_sets_of_channels(channels: int) -> None:
    f_t = torch.rand(2, channels, 4, 4, dtype=torch.float64)
    scale = torch.linspace(0.1, 9, channels, dtype=torch.float64).view(-1, 1, 1)
    assert abs(nst(f_t, f_t)) < 1e-14
    assert abs(nst(scale * f_t.flip(1), f_t)) < 1e-14
    # Each channel twice is the same distribution.
    assert abs(nst(f_t.repeat(1, 2, 1, 1), f_t)) < 1e-14
    assert nst(torch.rand_like(f_t), f_t) > 1e-3


@pytest.mark.parametrize("channels", [3, 40])
def test_dead_channels_get_no_gradient(channels: int) -> None:
    f_s = torch.rand(2, channels, 4, 4)
    f_s[:, 0] = 0
    f_s.requires_grad_()
    nst(f_s, torch.rand(2, channels, 4, 4)).backward()
    assert f_s.grad is not None
    assert torch.isfinite(f_s.grad).all()
    assert (f_s.grad[:, 0] == 0).all()


def test_the_higher_map_is_pooled() -> None:
    f_s, f_t = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 4, 4)
    assert torch.equal(nst(f_s, f_t), nst(F.avg_pool2d(f_s, 2), f_t))
    with pytest.raises(ValueError, match="one batch and grid"):
        nst(f_s, torch.rand(3, 5, 8, 8))


def test_stages_are_summed() -> None:
    trial = trial_of("nst", stages="1 3")
    student, teacher = trial.batch.student.stages, trial.batch.teacher.stages
    assert set(student) == {1, 3}
    expected = nst(student[1], teacher[1]) + nst(student[3], teacher[3])
    torch.testing.assert_close(trial.term(trial.batch), expected)
