import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import METHODS, PairShapes, norm
from kdscale.outputs import OutputShapes


def draw(seed: int, size_s: int = 4, size_t: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    f_s = torch.randn(2, 6, size_s, size_s, generator=generator, dtype=torch.float64)
    return f_s, torch.randn(2, 3, size_t, size_t, generator=generator, dtype=torch.float64)


def test_sum_of_the_copies_mean_squared_errors() -> None:
    f_s, f_t = draw(0)
    expected = F.mse_loss(f_s[:, :3], f_t) + F.mse_loss(f_s[:, 3:], f_t)
    torch.testing.assert_close(norm(f_s, f_t), expected)
    torch.testing.assert_close(norm(f_t, f_t), torch.zeros_like(expected))
    torch.testing.assert_close(norm(f_t.repeat(1, 4, 1, 1), f_t), torch.zeros_like(expected))


def test_the_higher_map_is_max_pooled() -> None:
    f_s, f_t = draw(1, size_t=8)
    torch.testing.assert_close(norm(f_s, f_t), norm(f_s, F.max_pool2d(f_t, 2)))
    f_s, f_t = draw(2, size_s=8)
    torch.testing.assert_close(norm(f_s, f_t), norm(F.max_pool2d(f_s, 2), f_t))


def test_refusals() -> None:
    method = METHODS["norm"]
    assert method.student == "norm"
    cnn = OutputShapes(10, 8, map=(8, 4, 4), linear=True)
    no_map = OutputShapes(10, 8, linear=True)
    no_classifier = OutputShapes(10, 8, map=(8, 4, 4))
    other_classes = OutputShapes(5, 8, map=(8, 4, 4))
    assert method.refuse(PairShapes(cnn, other_classes, 4), {}) == ""
    assert "the student must have one" in method.refuse(PairShapes(no_map, cnn, 4), {})
    assert "the teacher must have one" in method.refuse(PairShapes(cnn, no_map, 4), {})
    tiny = OutputShapes(10, 8, map=(8, 1, 1), linear=True)
    assert "at least 2 images, but got 1" in method.refuse(PairShapes(tiny, cnn, 1), {})
    assert method.refuse(PairShapes(cnn, cnn, 1), {}) == ""
    assert "must be linear" in method.refuse(PairShapes(no_classifier, cnn, 4), {})
    with pytest.raises(ValueError, match="N times the teacher's channels"):
        norm(torch.zeros(2, 7, 4, 4), torch.zeros(2, 3, 4, 4))
