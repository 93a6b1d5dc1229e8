import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import dkd, rld, standardise_logits

from .draws import draw


def mcd(z_s: Tensor, z_t: Tensor, y: Tensor) -> Tensor:
    return rld(z_s, z_t, y, alpha=0.0, beta=1.0, temperature=2.0, alpha_temperature=1.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 8))
def test_of_a_teacher_that_is_right_it_is_dkd(seed: int, temperature: float) -> None:
    z_s, z_t, _ = draw(seed)
    y = z_t.argmax(1)
    weights = {"alpha": 1.5, "beta": 4.0, "temperature": temperature}
    value = rld(z_s, z_t, y, **weights, alpha_temperature=temperature)
    torch.testing.assert_close(value, dkd(z_s, z_t, y, **weights))


def test_classes_that_the_teacher_ranks_above_the_label_do_not_matter() -> None:
    z_s, z_t, y = draw(1)
    above = z_t >= z_t.gather(1, y.unsqueeze(1))
    noise = torch.randn(z_s.shape, dtype=torch.float64)
    torch.testing.assert_close(mcd(z_s + above * noise, z_t, y), mcd(z_s, z_t, y))


def test_a_label_ranked_last_adds_nothing_but_counts_in_the_mean() -> None:
    z_s, z_t, _ = draw(2)
    y = z_t.argmax(1)
    last = y.clone()
    last[0] = z_t[0].argmin()
    z_s.requires_grad_()
    value = mcd(z_s, z_t, last)
    (gradient,) = torch.autograd.grad(value, z_s)
    torch.testing.assert_close(value, mcd(z_s[1:], z_t[1:], y[1:]) * 5 / 6)
    assert (gradient[0] == 0).all()


def test_the_student_learns_the_teachers_sureness_of_another_class() -> None:
    z_t = torch.tensor([[3.0, 0.0, -1.0]], dtype=torch.float64)
    z_s = z_t[:, [1, 0, 2]]  # as sure of class 1, the label, as the teacher is of class 0
    y = torch.tensor([1])
    value = rld(z_s, z_t, y, alpha=1.0, beta=0.0, temperature=1.0, alpha_temperature=2.0)
    assert abs(value.item()) < 1e-12


def test_a_sure_student_has_a_finite_exact_target_term() -> None:
    z_s = torch.tensor([[100.0, 0.0, -200.0]])
    z_t = torch.tensor([[1e-6, 0.0, -200.0]])
    y = torch.tensor([0])
    value = rld(z_s, z_t, y, alpha=1.0, beta=0.0, temperature=1.0, alpha_temperature=1.0)
    expected = 0.5 * torch.tensor(100.0) - torch.tensor(2.0).log()
    torch.testing.assert_close(value, expected)


def test_standardise_takes_standardised_logits() -> None:
    z_s, z_t, y = draw(3)
    options = {"alpha": 1.0, "beta": 8.0, "temperature": 2.0, "alpha_temperature": 2.0}
    value = rld(z_s, z_t, y, **options, standardise=True)
    expected = rld(standardise_logits(z_s), standardise_logits(z_t), y, **options)
    torch.testing.assert_close(value, expected)
    assert abs(value - rld(z_s, z_t, y, **options)) > 1e-2
