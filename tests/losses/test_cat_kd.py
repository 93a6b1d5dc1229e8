import pytest
import torch
from torch import Tensor

from kdscale.losses import METHODS, PairShapes, cat_kd
from kdscale.outputs import OutputShapes


def draw(seed: int, size_s: int = 8, size_t: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    m_s = torch.randn(4, 3, size_s, size_s, generator=generator, dtype=torch.float64)
    return m_s, torch.randn(4, 3, size_t, size_t, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("normalise", [True, False])
def test_zero_at_student_equal_to_teacher(normalise: bool) -> None:
    m, _ = draw(0)
    assert cat_kd(m, m, normalise=normalise) == 0


def test_resolution_1_compares_logits() -> None:
    m_s, m_t = draw(1, size_s=8, size_t=5)
    expected = (m_s.mean((2, 3)) - m_t.mean((2, 3))).square().mean()
    torch.testing.assert_close(cat_kd(m_s, m_t, resolution=1), expected)


def test_normalised_maps_have_no_scale() -> None:
    m_s, m_t = draw(2)
    scale = torch.tensor([0.1, 2.0, 30.0], dtype=torch.float64)[:, None, None]
    value = cat_kd(m_s, m_t, normalise=True)
    torch.testing.assert_close(cat_kd(scale * m_s, m_t, normalise=True), value)
    assert not torch.isclose(cat_kd(scale * m_s, m_t), cat_kd(m_s, m_t))
    opposite = cat_kd(-m_t, m_t, normalise=True)
    torch.testing.assert_close(opposite, torch.tensor(4 / 2**2, dtype=torch.float64))


def test_refusals() -> None:
    method = METHODS["cat_kd"]
    cnn = OutputShapes(10, 8, map=(8, 4, 4), linear=True)
    no_map = OutputShapes(10, 8, linear=True)
    assert "the student must have a linear classifier on the mean of a map" in method.refuse(
        PairShapes(no_map, cnn, 4), {}
    )
    fewer = OutputShapes(5, 8, map=(8, 4, 4), linear=True)
    assert "but got 10 and 5" in method.refuse(PairShapes(cnn, fewer, 4), {})
    with pytest.raises(ValueError, match="same images and classes"):
        cat_kd(draw(3)[0], draw(3)[1][:, :2])
