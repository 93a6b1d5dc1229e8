"""What classification's losses become pixel by pixel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, Batch, dist, kd, ldrld, rld
from kdscale.losses.dense import (
    dist_dense,
    ldrld_candidate,
    pixel_kd,
    rld_candidate,
    skd_pixel,
)
from kdscale.outputs import Outputs

from .maps import draw, draw_labels, pair

RLD = {"alpha": 1.0, "beta": 4.0, "temperature": 2.0, "alpha_temperature": 1.0}


def rows(z: Tensor) -> Tensor:
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 8))
def test_pixel_kd_is_kd_of_the_pixels(seed: int, temperature: float) -> None:
    z_s, z_t = draw(2, 5, 3, 4, seed=seed, scale=3), draw(2, 5, 3, 4, seed=seed + 1, scale=3)
    expected = kd(rows(z_s), rows(z_t), temperature=temperature)
    torch.testing.assert_close(pixel_kd(z_s, z_t, temperature=temperature), expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_constant_at_a_pixel_changes_nothing(seed: int) -> None:
    z_s, z_t, shift = (draw(2, c, 3, 4, seed=seed + c) for c in (5, 5, 1))
    for loss in (
        lambda s: pixel_kd(s, z_t, temperature=2.0),
        lambda s: skd_pixel(s, z_t),
        lambda s: dist_dense(s, z_t, temperature=1.0, beta=1.0, gamma=1.0),
        lambda s: ldrld_candidate(s, z_t, alpha=1.0, beta=1.0, depth=3, temperature=4.0),
        lambda s: rld_candidate(s, z_t, torch.zeros(2, 3, 4, dtype=torch.int64), **RLD),
    ):
        torch.testing.assert_close(loss(z_s + 5 * shift), loss(z_s))


def test_skd_pixel_is_smallest_and_the_entropy_at_the_teacher() -> None:
    z_t = draw(3, 5, 2, 4)
    p = torch.softmax(z_t, dim=1)
    entropy = -(p * p.log()).sum() / 8
    torch.testing.assert_close(skd_pixel(z_t, z_t), entropy)
    z_s = draw(3, 5, 2, 4, seed=1)
    torch.testing.assert_close(
        skd_pixel(z_s, z_t) - entropy, 3 * pixel_kd(z_s, z_t, temperature=1.0)
    )
    torch.testing.assert_close(3 * skd_pixel(z_s, z_t, reduction="mean"), skd_pixel(z_s, z_t))
    with pytest.raises(ValueError, match='"sum" or "mean", but got "none"'):
        skd_pixel(z_s, z_t, reduction="none")


def test_skd_pixel_of_the_global_batch_is_the_mean_over_workers() -> None:
    method = METHODS["skd_pixel"]
    z_s, z_t, target = draw(4, 5, 2, 3), draw(4, 5, 2, 3, seed=1), draw_labels(5, 4, 2, 3)
    for reduction in ("sum", "mean"):
        term = method.build(pair(), {"reduction": reduction})
        whole = term(Batch(Outputs(z_s), Outputs(z_t), target))
        torch.testing.assert_close(whole, skd_pixel(z_s, z_t, reduction=reduction))
        shares = [
            term(Batch(Outputs(z_s[k]), Outputs(z_t[k]), target[k], first=k.start, whole=4))
            for k in (slice(0, 2), slice(2, 4))
        ]
        torch.testing.assert_close(torch.stack(shares).mean(), whole)


def test_dist_and_ldrld_are_those_of_the_pixels() -> None:
    z_s, z_t = draw(2, 6, 3, 4, scale=3), draw(2, 6, 3, 4, seed=1, scale=3)
    of_dist = {"temperature": 1.0, "beta": 2.0, "gamma": 0.5}
    torch.testing.assert_close(
        dist_dense(z_s, z_t, **of_dist), dist(rows(z_s), rows(z_t), **of_dist)
    )
    of_ldrld = {"alpha": 2.0, "beta": 0.5, "temperature": 4.0}
    torch.testing.assert_close(
        ldrld_candidate(z_s, z_t, depth=3, **of_ldrld),
        ldrld(rows(z_s), rows(z_t), depth=3, **of_ldrld),
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_rld_candidate_is_rld_of_the_labelled_pixels(seed: int) -> None:
    z_s = draw(2, 5, 3, 4, seed=seed, scale=3).requires_grad_()
    z_t = draw(2, 5, 3, 4, seed=seed + 1, scale=3)
    target = draw_labels(5, 2, 6, 8, seed=seed)
    target[0, 0, 0] = 1  # at least one
    label = target[:, ::2, ::2].flatten()
    valid = label >= 0
    expected = rld(rows(z_s)[valid], rows(z_t)[valid], label[valid], **RLD)
    got = rld_candidate(z_s, z_t, target, **RLD)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, z_s), torch.autograd.grad(expected, z_s))


def test_rld_candidate_without_labels_is_zero() -> None:
    nothing = torch.full((2, 3, 4), -1)
    assert rld_candidate(draw(2, 5, 3, 4), draw(2, 5, 3, 4, seed=1), nothing, **RLD) == 0


def test_candidates_say_so_and_refuse_too_few_classes() -> None:
    for name in ("rld_candidate", "ldrld_candidate"):
        method = METHODS[name]
        assert "candidate" in method.title
        assert "composition" in method.source
    ldrld_hp = METHODS["ldrld_candidate"].complete({"depth": 4})
    reason = METHODS["ldrld_candidate"].refuse(pair(), ldrld_hp)
    assert ">= depth + 2 = 6, but got 5" in reason
    rld_hp = METHODS["rld_candidate"].complete({})
    assert "at least 2 classes" in METHODS["rld_candidate"].refuse(pair(classes=(1, 1)), rld_hp)
