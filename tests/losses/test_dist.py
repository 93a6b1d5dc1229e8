import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, dist

from .draws import draw, pair

seeds = st.integers(0, 2**31)


def part(z_s: Tensor, z_t: Tensor, which: str, temperature: float = 1.0) -> float:
    weights = {"beta": float(which == "inter"), "gamma": float(which == "intra")}
    return dist(z_s, z_t, temperature=temperature, **weights).item()


def test_parts_are_means_of_correlation_coefficients() -> None:
    z_s, z_t, _ = draw(1)
    p_s, p_t = (z_s / 2).softmax(1), (z_t / 2).softmax(1)
    rows = [torch.corrcoef(torch.stack(pair_))[0, 1] for pair_ in zip(p_s, p_t, strict=True)]
    columns = [torch.corrcoef(torch.stack(c))[0, 1] for c in zip(p_s.T, p_t.T, strict=True)]
    inter, intra = 4 * (1 - torch.stack(rows).mean()), 4 * (1 - torch.stack(columns).mean())
    assert part(z_s, z_t, "inter", 2.0) == pytest.approx(inter.item(), rel=1e-5)
    assert part(z_s, z_t, "intra", 2.0) == pytest.approx(intra.item(), rel=1e-5)
    both = dist(z_s, z_t, temperature=2.0, beta=3.0, gamma=0.5)
    assert both.item() == pytest.approx(3 * inter.item() + 0.5 * intra.item(), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, a=st.floats(0.2, 0.9))
def test_inter_does_not_see_affine_maps_of_a_samples_probabilities(seed: int, a: float) -> None:
    _, z_t, _ = draw(seed)
    p_t = z_t.softmax(1)
    z_s = (a * p_t + (1 - a) / p_t.shape[1]).log()
    assert abs(part(z_s, z_t, "inter")) < 1e-5


@settings(max_examples=20, deadline=None)
@given(seed=seeds, a=st.floats(0.2, 0.9))
def test_intra_does_not_see_affine_maps_of_a_classs_probabilities(seed: int, a: float) -> None:
    other, z_t, _ = draw(seed)
    z_t = z_t / 4  # less sure, so that no column is nearly constant
    z_s = (a * z_t.softmax(1) + (1 - a) * other[0].softmax(0)).log()
    assert abs(part(z_s, z_t, "intra")) < 1e-4
    assert part(z_s, z_t, "inter") > 1e-4


def test_columns_without_spread_have_no_correlation_and_no_gradient() -> None:
    _, z_t, _ = draw(2)
    z_s = z_t[:1].repeat(6, 1).requires_grad_()
    value = dist(z_s, z_t[:1].repeat(6, 1), temperature=1.0, beta=0.0, gamma=1.0)
    (gradient,) = torch.autograd.grad(value, z_s)
    assert value.item() == pytest.approx(1.0, abs=1e-6)
    assert torch.isfinite(gradient).all()


def test_the_whole_batch_matters() -> None:
    z_s, z_t, _ = draw(3)
    halves = [part(z_s[half], z_t[half], "intra") for half in (slice(0, 3), slice(3, 6))]
    assert abs(sum(halves) / 2 - part(z_s, z_t, "intra")) > 1e-3
    assert METHODS["dist"].couples_batch


def test_a_batch_of_one_is_refused() -> None:
    method = METHODS["dist"]
    reason = method.refuse(pair(batch_size=1), method.complete({}))
    assert reason.endswith("must hold at least 2 images, but got 1")
