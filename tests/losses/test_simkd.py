import pytest
import torch
import torch.nn.functional as F

from kdscale.losses import METHODS, PairShapes, simkd
from kdscale.outputs import OutputShapes


def test_mean_squared_error_of_maps_of_one_size() -> None:
    f_s, f_t = torch.randn(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    torch.testing.assert_close(simkd(f_s, f_t), F.mse_loss(f_s, f_t))
    assert simkd(f_t, f_t) == 0


def test_a_higher_teacher_is_pooled() -> None:
    generator = torch.Generator().manual_seed(1)
    f_s, f_t = (torch.randn(4, 3, size, size, generator=generator) for size in (4, 8))
    torch.testing.assert_close(simkd(f_s, f_t), F.mse_loss(f_s, F.avg_pool2d(f_t, 2)))
    with pytest.raises(ValueError, match="the teacher's at least the student's height"):
        simkd(f_t, f_s)


def test_refusals() -> None:
    method = METHODS["simkd"]
    assert method.student == "simkd"
    cnn = OutputShapes(10, 8, map=(8, 4, 4), linear=True)
    no_map = OutputShapes(10, 8, linear=True)
    no_classifier = OutputShapes(10, 8, map=(8, 4, 4))
    fewer = OutputShapes(5, 8, map=(8, 4, 4), linear=True)
    assert method.refuse(PairShapes(no_classifier, cnn, 4), {}) == ""
    assert "the student must have one" in method.refuse(PairShapes(no_map, cnn, 4), {})
    assert "the teacher must have one" in method.refuse(PairShapes(cnn, no_map, 4), {})
    tiny = OutputShapes(10, 8, map=(8, 1, 1), linear=True)
    assert "at least 2 images, but got 1" in method.refuse(PairShapes(tiny, cnn, 1), {})
    assert method.refuse(PairShapes(cnn, cnn, 1), {}) == ""
    assert "must be linear" in method.refuse(PairShapes(cnn, no_classifier, 4), {})
    assert "but got 10 and 5" in method.refuse(PairShapes(cnn, fewer, 4), {})
