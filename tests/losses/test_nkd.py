import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import nkd
from kdscale.losses._nkd import nkd_rows

from .draws import draw


def removed_columns(z: Tensor, y: Tensor) -> Tensor:
    keep = torch.ones_like(z, dtype=torch.bool).scatter(1, y.unsqueeze(1), value=False)
    return z[keep].view(len(z), -1)


def test_is_two_cross_entropies() -> None:
    z_s, z_t, y = draw(3)
    p_y = z_t.softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    target_term = (p_y * F.cross_entropy(z_s, y, reduction="none")).mean()
    others_s, others_t = removed_columns(z_s / 3, y), removed_columns(z_t / 3, y)
    non_target_term = F.cross_entropy(others_s, others_t.softmax(1))
    expected = target_term + 3.5 * 9 * non_target_term
    torch.testing.assert_close(nkd(z_s, z_t, y, temperature=3.0, gamma=3.5), expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 4))
def test_at_student_equal_teacher_the_non_target_term_is_the_entropy_its_least_value(
    seed: int, temperature: float
) -> None:
    z_s, z_t, y = draw(seed)

    def non_target(z: Tensor) -> Tensor:
        both = nkd(z, z_t, y, temperature=temperature, gamma=1.0)
        return both - nkd(z, z_t, y, temperature=temperature, gamma=0.0)

    q = removed_columns(z_t / temperature, y).softmax(1)
    entropy = -(temperature**2) * torch.xlogy(q, q).sum(1).mean()
    torch.testing.assert_close(non_target(z_t), entropy)
    assert non_target(z_s) >= entropy


def test_target_term_has_neither_temperature_nor_its_square() -> None:
    z_s, z_t, y = draw(4)
    values = [nkd(z_s, z_t, y, temperature=t, gamma=0.0) for t in (1.0, 5.0)]
    torch.testing.assert_close(*values, rtol=0, atol=0)


def test_rows_are_the_losses_of_single_samples() -> None:
    z_s, z_t, y = draw(5)
    rows = nkd_rows(z_s, z_t, y, temperature=2.0, gamma=1.5)
    for b in range(len(y)):
        one = slice(b, b + 1)
        alone = nkd(z_s[one], z_t[one], y[one], temperature=2.0, gamma=1.5)
        torch.testing.assert_close(rows[b], alone)


def test_label_gets_no_gradient_from_the_non_target_term() -> None:
    z_s, z_t, y = draw(6)
    z_s.requires_grad_()
    both = nkd(z_s, z_t, y, temperature=2.0, gamma=1.0)
    value = both - nkd(z_s, z_t, y, temperature=2.0, gamma=0.0)
    (gradient,) = torch.autograd.grad(value, z_s)
    at_label = gradient.gather(1, y.unsqueeze(1))
    torch.testing.assert_close(at_label, torch.zeros_like(at_label), rtol=0, atol=1e-15)
