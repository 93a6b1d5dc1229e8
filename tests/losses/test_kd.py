import torch

from kdscale.losses import METHODS, PairShapes, kd
from kdscale.outputs import OutputShapes


def test_is_the_textbook_sum() -> None:
    z_s, z_t = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    p, q = torch.softmax(z_t / 3, dim=1), torch.softmax(z_s / 3, dim=1)
    expected = 9 * (p * (p / q).log()).sum() / 4
    torch.testing.assert_close(kd(z_s, z_t, temperature=3.0), expected)


def test_refuses_different_numbers_of_classes() -> None:
    method = METHODS["kd"]
    shapes = PairShapes(OutputShapes(10, 8), OutputShapes(100, 8), batch_size=4)
    assert "same number of classes, but got 10 and 100" in method.refuse(shapes, {})
    shapes = PairShapes(OutputShapes(10, 8), OutputShapes(10, 16), batch_size=4)
    assert method.refuse(shapes, {}) == ""
