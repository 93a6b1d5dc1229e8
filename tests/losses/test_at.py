import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.losses import at

from .pairs import trial_of


def maps(seed: int, *, grid_t: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    f_s = torch.randn(3, 4, 4, 4, generator=generator, dtype=torch.float64)
    return f_s, torch.randn(3, 6, grid_t, grid_t, generator=generator, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), p=st.integers(1, 4))
def test_the_scale_of_a_sample_does_not_matter(seed: int, scale: float, p: int) -> None:
    f_s, f_t = maps(seed)
    scales = torch.tensor([scale, 1.0, 1 / scale], dtype=torch.float64).view(3, 1, 1, 1)
    expected = at(f_s, f_t, p=p)
    torch.testing.assert_close(at(scales * f_s, f_t, p=p), expected, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(at(f_s, scales * f_t, p=p), expected, rtol=1e-9, atol=1e-15)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), p=st.integers(1, 4))
def test_zero_at_student_equal_teacher(seed: int, p: int) -> None:
    f_s, _ = maps(seed)
    assert at(f_s, f_s, p=p) == 0
    # Only the energy at each position counts, not which channels hold it.
    assert at(f_s.flip(1), f_s, p=p) < 1e-30


def test_the_higher_map_is_pooled_before_the_power() -> None:
    f_s, f_t = maps(0, grid_t=8)
    assert torch.equal(at(f_s, f_t), at(f_s, F.avg_pool2d(f_t, 2)))
    assert torch.equal(at(f_t, f_s), at(F.avg_pool2d(f_t, 2), f_s))


def test_odd_powers_keep_the_sign_as_the_official_code() -> None:
    f_s, f_t = maps(0)
    for p in (2, 4):
        torch.testing.assert_close(at(f_s.abs(), f_t, p=p), at(f_s, f_t, p=p))
    for p in (1, 3):
        assert abs(at(f_s.abs(), f_t, p=p) - at(f_s, f_t, p=p)) > 1e-4


def test_an_empty_map_gives_finite_gradients() -> None:
    f_s = torch.zeros(2, 3, 4, 4, requires_grad=True)
    at(f_s, torch.rand(2, 3, 4, 4)).backward()
    assert f_s.grad is not None
    assert torch.isfinite(f_s.grad).all()


def test_grids_that_differ_after_pooling_are_refused() -> None:
    with pytest.raises(ValueError, match="one batch and grid"):
        at(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5))


def test_stages_are_summed() -> None:
    trial = trial_of("at", p=3)
    student, teacher = trial.batch.student.stages, trial.batch.teacher.stages
    expected = sum(at(student[k], teacher[k], p=3) for k in (1, 2, 3))
    torch.testing.assert_close(trial.term(trial.batch), expected)
