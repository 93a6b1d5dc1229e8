import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, PairShapes, dkd, kd
from kdscale.outputs import OutputShapes


def draw(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z_s = 3 * torch.randn(6, 7, generator=generator, dtype=torch.float64)
    z_t = 3 * torch.randn(6, 7, generator=generator, dtype=torch.float64)
    return z_s, z_t, torch.randint(7, (6,), generator=generator)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 8))
def test_kd_is_tckd_plus_nckd_weighted_by_the_rest_of_the_teacher(
    seed: int, temperature: float
) -> None:
    z_s, z_t, y = draw(seed)
    parts = []
    for b in range(len(y)):
        one = slice(b, b + 1)
        p_y = torch.softmax(z_t[b] / temperature, dim=0)[y[b]].item()
        decoupled = dkd(
            z_s[one], z_t[one], y[one], alpha=1.0, beta=1 - p_y, temperature=temperature
        )
        parts.append(decoupled)
    torch.testing.assert_close(torch.stack(parts).mean(), kd(z_s, z_t, temperature=temperature))


def test_is_kl_of_the_removed_columns() -> None:
    z_s, z_t, y = draw(5)
    keep = torch.ones_like(z_s, dtype=torch.bool).scatter(1, y.unsqueeze(1), value=False)
    others_s, others_t = z_s[keep].view(6, 6), z_t[keep].view(6, 6)
    nckd = dkd(z_s, z_t, y, alpha=0.0, beta=1.0, temperature=4.0)
    torch.testing.assert_close(nckd, kd(others_s, others_t, temperature=4.0))


def test_sure_student_has_a_finite_exact_target_term() -> None:
    # log(1 - p_y) is -100 here; 1 - p_y itself rounds to 0 in float32.
    z_s = torch.tensor([[100.0, 0.0, -200.0]])
    z_t = torch.tensor([[0.0, 0.0, -200.0]])
    value = dkd(z_s, z_t, torch.tensor([0]), alpha=1.0, beta=0.0, temperature=1.0)
    torch.testing.assert_close(value, 0.5 * torch.tensor(100.0) - torch.tensor(2.0).log())


def test_with_two_classes_only_the_target_term_is_left() -> None:
    z_s, z_t, y = draw(9)
    z_s, z_t, y = z_s[:, :2], z_t[:, :2], y % 2
    value = dkd(z_s, z_t, y, alpha=1.0, beta=8.0, temperature=2.0)
    torch.testing.assert_close(value, kd(z_s, z_t, temperature=2.0))


def test_refusals() -> None:
    refuse = METHODS["dkd"].refuse
    one = PairShapes(OutputShapes(1, 8), OutputShapes(1, 8), batch_size=4)
    assert "at least 2 classes, but got 1" in refuse(one, {})
    unequal = PairShapes(OutputShapes(10, 8), OutputShapes(5, 8), batch_size=4)
    assert "but got 10 and 5" in refuse(unequal, {})
