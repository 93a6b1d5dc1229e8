import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, Batch
from kdscale.losses.dense import bpkd_body, bpkd_edge, bpkd_edges, cwd, pixel_kd
from kdscale.outputs import Outputs

from .maps import draw, draw_labels, pair

BPKD = METHODS["bpkd"]


def dilation_minus_erosion(target: Tensor, classes: int, width: int) -> Tensor:
    inside = F.one_hot(target.clamp(min=0), classes).permute(0, 3, 1, 2).float()
    inside = inside * (target >= 0).unsqueeze(1)
    dilated, others = (F.max_pool2d(x, width, 1, width // 2) for x in (inside, 1 - inside))
    return (dilated - (1 - others)) * (target >= 0).unsqueeze(1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), width=st.sampled_from([1, 3, 5, 7]))
def test_edges_are_dilation_minus_erosion_averaged(seed: int, width: int) -> None:
    # Blocks of 4 x 4 labels, so that there are bodies too.
    target = draw_labels(3, 2, 4, 6, seed=seed).repeat_interleave(4, 1).repeat_interleave(4, 2)
    full = dilation_minus_erosion(target, 3, width)
    got = bpkd_edges(target, classes=3, grid=(8, 12), width=width)
    torch.testing.assert_close(got, F.avg_pool2d(full, 2))
    assert torch.equal(bpkd_edges(target, classes=3, grid=(16, 24), width=width), full)


def test_an_image_of_one_class_is_all_body() -> None:
    target = torch.ones(1, 8, 8, dtype=torch.int64)
    edges = bpkd_edges(target, classes=3, grid=(4, 4))
    assert edges.sum() == 0
    z_s, z_t = draw(1, 3, 4, 4), draw(1, 3, 4, 4, seed=1)
    assert bpkd_edge(z_s, z_t, edges.double(), temperature=4.0) == 0
    body = bpkd_body(z_s, z_t, edges.double(), temperature=4.0)
    torch.testing.assert_close(body, cwd(z_s, z_t, temperature=4.0))


def test_all_edge_is_pixel_kd_of_every_class() -> None:
    z_s, z_t, all_edge = draw(2, 3, 4, 4), draw(2, 3, 4, 4, seed=1), torch.ones(2, 3, 4, 4).double()
    edge = bpkd_edge(z_s, z_t, all_edge, temperature=4.0, alpha=2.0)
    torch.testing.assert_close(edge, 2 * 3 * pixel_kd(z_s, z_t, temperature=4.0))
    assert bpkd_body(z_s, z_t, all_edge, temperature=4.0) == 0


def test_the_two_counts_differ_for_soft_edges() -> None:
    z_s, z_t = draw(1, 2, 3, 3), draw(1, 2, 3, 3, seed=1)
    soft = torch.full((1, 2, 3, 3), 0.5, dtype=torch.float64)
    by_nonzero = bpkd_edge(z_s, z_t, soft, temperature=4.0)
    by_area = bpkd_edge(z_s, z_t, soft, temperature=4.0, count="area")
    torch.testing.assert_close(by_area, 2 * by_nonzero)
    with pytest.raises(ValueError, match='"nonzero" or "area", but got "all"'):
        bpkd_edge(z_s, z_t, soft, temperature=4.0, count="all")


def test_term_is_the_weighted_sum_and_zero_at_the_teacher() -> None:
    z_s, z_t, target = draw(2, 5, 4, 6), draw(2, 5, 4, 6, seed=1), draw_labels(5, 2, 8, 12)
    term = BPKD.build(pair(), BPKD.complete({"width": 3}))
    edges = bpkd_edges(target, classes=5, grid=(4, 6), width=3).double()
    expected = 50 * bpkd_edge(z_s, z_t, edges, temperature=4.0) + 20 * bpkd_body(
        z_s, z_t, edges, temperature=4.0
    )
    torch.testing.assert_close(term(Batch(Outputs(z_s), Outputs(z_t), target)), expected)
    same = term(Batch(Outputs(z_t), Outputs(z_t), target))
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-12, rtol=0)


def test_even_widths_are_refused() -> None:
    assert "must be odd, but got 4" in BPKD.refuse(pair(), BPKD.complete({"width": 4}))
