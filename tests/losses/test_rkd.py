from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kdscale.losses import METHODS, _rkd, rkd

from .pairs import shapes_for


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def loss(e_s: Tensor, e_t: Tensor) -> Tensor:
    return rkd(e_s, e_t, distance_weight=25.0, angle_weight=50.0)


def straightforward(e_s: Tensor, e_t: Tensor) -> Tensor:
    """Distances of differences, and directions as a B x B x D tensor."""

    def distances(e: Tensor) -> Tensor:
        d = torch.cdist(e, e, compute_mode="donot_use_mm_for_euclid_dist")
        return d / d[d > 0].mean()

    def cosines(e: Tensor) -> Tensor:
        directions = F.normalize(e.unsqueeze(0) - e.unsqueeze(1), dim=2)
        return directions @ directions.transpose(1, 2)

    distance = F.smooth_l1_loss(distances(e_s), distances(e_t))
    return 25 * distance + 50 * F.smooth_l1_loss(cosines(e_s), cosines(e_t))


@pytest.mark.parametrize("chunk", [2**20, 3 * 49])
def test_equals_the_straightforward_form_in_chunks_too(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rkd, "CHUNK", chunk)
    e_s, e_t = draw(0, 7, 4).requires_grad_(), draw(1, 7, 6)
    got, expected = loss(e_s, e_t), straightforward(e_s, e_t)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(got, e_s), torch.autograd.grad(expected, e_s), rtol=1e-9, atol=1e-12
    )


def test_has_a_gradient_of_the_gradient() -> None:
    e_s, e_t = draw(0, 5, 3).requires_grad_(), draw(1, 5, 4)
    assert torch.autograd.gradgradcheck(lambda e: loss(e, e_t), e_s)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_shift_scale_and_rotation_do_not_matter(seed: int, scale: float) -> None:
    e_s, e_t = draw(seed, 6, 4), draw(seed + 1, 6, 5)
    turned = scale * e_s @ torch.linalg.qr(draw(seed + 2, 4, 4)).Q + draw(seed + 3, 4)
    torch.testing.assert_close(loss(turned, e_t), loss(e_s, e_t), rtol=1e-6, atol=1e-9)
    assert loss(e_s, e_s) == 0
    assert loss(turned, e_s) < 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), offset=st.sampled_from([0.0, 1e2, 1e4]))
def test_float32_agrees_with_float64_far_from_the_origin_and_close_together(
    seed: int, offset: float
) -> None:
    classes = 3 * draw(seed, 2, 16).repeat(4, 1)
    e_s = (offset + classes + 0.03 * draw(seed + 1, 8, 16)).float()
    e_t = (offset + classes + 0.03 * draw(seed + 2, 8, 16)).float()
    results = []
    for dtype in (torch.float32, torch.float64):
        student = e_s.to(dtype).requires_grad_()
        value = loss(student, e_t.to(dtype))
        results.append((value, *torch.autograd.grad(value, student)))
    (value, gradient), (expected, wanted) = results
    torch.testing.assert_close(value.double(), expected, rtol=1e-3, atol=1e-5)
    error = (gradient.double() - wanted).norm() / wanted.norm()
    assert error < 1e-2


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_no_tensor_is_larger_than_b_cubed_and_none_so_large_is_kept() -> None:
    e_s, e_t = draw(0, 8, 50).requires_grad_(), draw(1, 8, 50)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with (
        LargestTensor() as tensors,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        value = loss(e_s, e_t)
    value.backward()
    assert tensors.numel == 8**3
    assert max(kept) == 8 * 50


def test_equal_images_give_finite_gradients() -> None:
    e = draw(0, 6, 4).float()
    e[1] = e[0]
    student = e.clone().requires_grad_()
    loss(student, draw(1, 6, 4).float()).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 1e3
    collapsed = torch.ones(6, 4, requires_grad=True)
    value = loss(collapsed, e)
    value.backward()
    assert torch.isfinite(value)
    assert collapsed.grad is not None
    assert torch.isfinite(collapsed.grad).all()


def test_without_weight_the_angles_are_not_computed() -> None:
    e_s, e_t = draw(0, 6, 4), draw(1, 6, 4)
    with LargestTensor() as tensors:
        distance = rkd(e_s, e_t, distance_weight=1.0, angle_weight=0.0)
    assert tensors.numel == 36
    angle = rkd(e_s, e_t, distance_weight=0.0, angle_weight=1.0)
    torch.testing.assert_close(loss(e_s, e_t), 25 * distance + 50 * angle)


def test_refusals() -> None:
    method = METHODS["rkd"]
    assert "at least 2, but got 1" in method.refuse(shapes_for(method, 1), {})
    assert method.refuse(shapes_for(method, 2), {}) == ""
    with pytest.raises(ValueError, match="at least 2 images"):
        loss(draw(0, 1, 3), draw(1, 1, 3))
