import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, cckd

from .pairs import shapes_for, trial_of


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_a_long_expansion_is_the_gaussian_kernel() -> None:
    e_s, e_t = draw(0, 5, 4), draw(1, 5, 6)

    def gaussian(e: Tensor) -> Tensor:
        return torch.exp(-0.4 * torch.cdist(F.normalize(e), F.normalize(e)).square())

    expected = (gaussian(e_s) - gaussian(e_t)).square().sum() / 25
    torch.testing.assert_close(cckd(e_s, e_t, gamma=0.4, order=20), expected)


def test_torchdistills_form_has_raw_rows_and_a_plain_norm() -> None:
    e_s, e_t = draw(0, 5, 4), draw(1, 5, 6)

    def kernel(e: Tensor) -> Tensor:
        products = e @ e.T
        return math.exp(-0.8) * (1 + 0.8 * products + 0.8**2 / 2 * products**2)

    expected = (kernel(e_s) - kernel(e_t)).square().sum().sqrt() / 25
    got = cckd(e_s, e_t, gamma=0.4, order=2, variant="torchdistill")
    torch.testing.assert_close(got, expected)
    paper = cckd(F.normalize(e_s), F.normalize(e_t), gamma=0.4, order=2)
    unit = cckd(F.normalize(e_s), F.normalize(e_t), gamma=0.4, order=2, variant="torchdistill")
    torch.testing.assert_close(paper, (unit * 25).square() / 25)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3), order=st.integers(1, 4))
def test_the_papers_form_sees_neither_scale_nor_rotation(
    seed: int, scale: float, order: int
) -> None:
    e_s, e_t = draw(seed, 6, 4), draw(seed + 1, 6, 5)
    turned = scale * e_s @ torch.linalg.qr(draw(seed + 2, 4, 4)).Q
    expected = cckd(e_s, e_t, gamma=0.4, order=order)
    got = cckd(turned, e_t, gamma=0.4, order=order)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-12)
    assert cckd(turned, e_s, gamma=0.4, order=order) < 1e-20


@pytest.mark.parametrize("variant", ["paper", "torchdistill"])
def test_zero_with_a_finite_gradient_at_student_equal_teacher(variant: str) -> None:
    e = draw(0, 5, 4).requires_grad_()
    value = METHODS["cckd"].complete({"variant": variant})["variant"]
    assert value == variant
    loss = cckd(e, e.detach(), gamma=0.4, order=2, variant=variant)  # type: ignore[arg-type]
    assert loss == 0
    loss.backward()
    assert e.grad is not None
    assert torch.equal(e.grad, torch.zeros_like(e))


def test_the_variants_differ() -> None:
    paper, other = trial_of("cckd"), trial_of("cckd", variant="torchdistill")
    assert not torch.isclose(paper.term(paper.batch), other.term(other.batch))


def test_refusals() -> None:
    method = METHODS["cckd"]
    assert "at least 2, but got 1" in method.refuse(shapes_for(method, 1), {})
    assert method.refuse(shapes_for(method, 2), {}) == ""
