import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses.dense import ifvd

from .maps import draw, draw_labels


def straightforward(f_s: Tensor, f_t: Tensor, label: Tensor) -> Tensor:
    """A centre for each class of each image; ignored pixels left out."""
    total = torch.zeros((), dtype=f_s.dtype)
    for b in range(len(label)):
        for number in label[b].unique():
            if number < 0:
                continue
            cosines = [
                F.cosine_similarity(f[b][:, label[b] == number].T, centre.unsqueeze(0))
                for f in (f_s, f_t)
                for centre in [f[b][:, label[b] == number].mean(1)]
            ]
            total = total + (cosines[0] - cosines[1]).square().sum()
    return total / label.numel()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_is_one_centre_a_class_and_image(seed: int) -> None:
    f_s = draw(3, 4, 4, 6, seed=seed).requires_grad_()
    f_t, target = draw(3, 7, 4, 6, seed=seed + 1), draw_labels(5, 3, 8, 12, seed=seed)
    got, expected = (
        ifvd(f_s, f_t, target, classes=5),
        straightforward(f_s, f_t, target[:, ::2, ::2]),
    )
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(
        torch.autograd.grad(got, f_s)[0], torch.autograd.grad(expected, f_s)[0]
    )


def test_ignored_pixels_add_nothing_but_count() -> None:
    f_s, f_t = draw(2, 4, 3, 4).requires_grad_(), draw(2, 4, 3, 4, seed=1)
    target = draw_labels(3, 2, 3, 4, least=0)
    target[:, 0] = -1
    target[:, 1] = 255
    value = ifvd(f_s, f_t, target, classes=3)
    below = ifvd(f_s[:, :, 2:], f_t[:, :, 2:], target[:, 2:], classes=3)
    torch.testing.assert_close(value, below / 3)
    (gradient,) = torch.autograd.grad(value, f_s)
    assert torch.equal(gradient[:, :, :2], torch.zeros_like(gradient[:, :, :2]))
    assert ifvd(f_s, f_t, torch.full_like(target, -1), classes=3) == 0


def test_is_zero_at_equal_and_at_scaled_features_and_for_lone_pixels() -> None:
    f, zero = draw(2, 4, 3, 4), torch.zeros((), dtype=torch.float64)
    target = draw_labels(3, 2, 3, 4)
    assert ifvd(f, f, target, classes=3) == 0
    torch.testing.assert_close(ifvd(5 * f, f, target, classes=3), zero, atol=1e-14, rtol=0)
    lone = torch.arange(12).view(1, 3, 4).expand(2, 3, 4)  # each pixel is its class's centre
    other = draw(2, 4, 3, 4, seed=1)
    torch.testing.assert_close(ifvd(f, other, lone, classes=12), zero, atol=1e-14, rtol=0)
