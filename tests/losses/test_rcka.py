import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, PairShapes, cka, rcka
from kdscale.outputs import OutputShapes


def draw(seed: int, n: int = 6, d_s: int = 9, d_t: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_s = torch.randn(n, d_s, generator=generator, dtype=torch.float64)
    return x_s, torch.randn(n, d_t, generator=generator, dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100), centred=st.booleans())
def test_scale_and_rotation_change_nothing(seed: int, scale: float, centred: bool) -> None:
    x_s, x_t = draw(seed)
    rotation, _ = torch.linalg.qr(draw(seed + 1, n=9)[0])
    value = cka(x_s, x_t, centred=centred)
    assert 0 <= value <= 1 + 1e-12
    torch.testing.assert_close(cka(scale * x_s @ rotation, x_t, centred=centred), value)


@pytest.mark.parametrize("row_norm", [True, False])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(4, 9, 7), (9, 4, 3), (6, 9, 4)])
def test_is_the_cosine_of_the_kernels(
    n: int, d_s: int, d_t: int, centred: bool, row_norm: bool
) -> None:
    x_s, x_t = draw(2, n, d_s, d_t)
    value = cka(x_s, x_t, row_norm=row_norm, centred=centred)
    kernels = []
    for x in (x_s, x_t):
        rows = x - x.mean(0) if centred else x
        kernel = rows @ rows.T
        kernels.append(kernel / kernel.diag().sqrt().unsqueeze(1) if row_norm else kernel)
    k_s, k_t = kernels
    torch.testing.assert_close(value, (k_s * k_t).sum() / k_s.norm() / k_t.norm())


def test_centring_is_that_of_the_kernel() -> None:
    x_s, x_t = draw(3)
    h = torch.eye(6, dtype=torch.float64) - 1 / 6
    k_s, k_t = h @ x_s @ x_s.T @ h, h @ x_t @ x_t.T @ h
    expected = (k_s * k_t).sum() / k_s.norm() / k_t.norm()
    torch.testing.assert_close(cka(x_s, x_t, centred=True), expected)
    torch.testing.assert_close(cka(x_s + 5, x_t, centred=True), expected)
    assert not torch.isclose(cka(x_s, x_t), expected)


@pytest.mark.parametrize("row_norm", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 4.0])
def test_smallest_at_student_equal_to_teacher(row_norm: bool, temperature: float) -> None:
    z_s, z_t = draw(4)
    z_s.requires_grad_()
    settings = {"inter": 15.0, "intra": 3.0, "row_norm": row_norm, "temperature": temperature}
    best = rcka(z_s, z_s.detach(), **settings)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(best, z_s)
    assert best.item() == pytest.approx(-18)
    assert gradient.abs().max() < 1e-12
    assert rcka(z_s, z_t, **settings) > best  # type: ignore[arg-type]


def test_classes_are_the_columns() -> None:
    z_s, z_t = draw(5)
    classes = rcka(z_s, z_t, inter=0.0, intra=1.0)
    torch.testing.assert_close(classes, rcka(z_s.T, z_t.T, inter=1.0, intra=0.0))


def test_logits_of_1e4_stay_finite_in_float32() -> None:
    z_s, z_t = draw(6, n=64, d_s=1000, d_t=1000)
    z_s, z_t = 1e4 * z_s.float(), 1e4 * z_t.float()
    z_s.requires_grad_()
    loss = rcka(z_s, z_t, inter=1.0, intra=1.0, row_norm=False)
    (gradient,) = torch.autograd.grad(loss, z_s)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_refusals() -> None:
    method = METHODS["rcka"]
    one = PairShapes(OutputShapes(10, 8), OutputShapes(10, 8), 1)
    assert "at least 2, but got 1" in method.refuse(one, method.complete({}))
    unequal = PairShapes(OutputShapes(10, 8), OutputShapes(5, 8), 4)
    assert "but got 10 and 5" in method.refuse(unequal, method.complete({}))
    with pytest.raises(ValueError, match="equally many rows"):
        cka(torch.zeros(2, 3), torch.zeros(3, 3))
