import pytest
import torch
from torch import Tensor, nn

from kdscale.losses import METHODS, Batch
from kdscale.losses.dense import SKDDiscriminator, skd_discriminator, skd_generator, skd_pair
from kdscale.outputs import Outputs

from .maps import draw, draw_labels, pair

HOLISTIC = METHODS["skd_holistic"]


@pytest.mark.parametrize("form", ["cirkd", "original"])
def test_pair_is_zero_at_equal_maps_and_at_scaled_ones(form: str) -> None:
    f = draw(2, 4, 5, 7).abs()
    assert skd_pair(f, f, form=form) == 0
    torch.testing.assert_close(
        skd_pair(3 * f, f, form=form), torch.zeros((), dtype=f.dtype), atol=1e-14, rtol=0
    )
    assert skd_pair(draw(2, 3, 5, 7, seed=1), f, form=form) > 0


def test_original_form_keeps_few_nodes_and_detaches_the_norm() -> None:
    f_s, f_t = draw(1, 4, 6, 6).requires_grad_(), draw(1, 4, 6, 6, seed=1)
    value = skd_pair(f_s, f_t, form="original", scale=0.5)
    (gradient,) = torch.autograd.grad(value, f_s)
    assert (gradient != 0).sum() <= 4 * 4  # 2 x 2 nodes of 4 channels
    # With the norm differentiated, a map's own direction gets no gradient; here it does.
    assert (gradient * f_s).sum().abs() > 1e-4
    differentiated = torch.autograd.grad(skd_pair(f_s, f_t, form="cirkd"), f_s)[0]
    torch.testing.assert_close(
        (differentiated * f_s).sum(), torch.zeros((), dtype=f_s.dtype), atol=1e-12, rtol=0
    )


def test_original_window_follows_the_teacher_and_is_at_least_one_pixel() -> None:
    f_s, f_t = draw(2, 4, 5, 6), draw(2, 4, 5, 6, seed=1)
    whole = skd_pair(f_s, f_t, form="original", scale=0.0)
    torch.testing.assert_close(skd_pair(f_s, f_t, form="original", scale=0.1), whole)
    assert skd_pair(f_s, f_t, form="original", scale=1.0) < 1e-15  # one node, cosine 1
    with pytest.raises(ValueError, match='"cirkd" or "original", but got "other"'):
        skd_pair(f_s, f_t, form="other")
    with pytest.raises(ValueError, match="one batch and grid"):
        skd_pair(f_s, f_t[:, :, :4])


def test_hinge_values() -> None:
    score_s, score_t = torch.tensor([-3.0, 1.0]), torch.tensor([2.0, 0.0])
    assert skd_generator(score_s) == 1.0
    assert skd_discriminator(score_s, score_t) == 0.5 + 1.0


def holistic() -> tuple[nn.Module, Tensor, Batch]:
    torch.manual_seed(0)
    term = HOLISTIC.build(pair(), HOLISTIC.complete({"width": 8, "lambda_d": 3.0}))
    assert isinstance(term, nn.Module)
    z_s = draw(2, 5, 4, 6).requires_grad_()
    batch = Batch(Outputs(z_s), Outputs(draw(2, 5, 4, 6, seed=1)), draw_labels(5, 2, 4, 6))
    return term.double(), z_s, batch


def test_one_backward_gives_each_side_the_gradient_of_its_own_loss() -> None:
    term, z_s, batch = holistic()
    term.eval()  # spectral norm stands still, so that the parts can be computed again
    discriminator = term.discriminator
    assert isinstance(discriminator, SKDDiscriminator)
    parameters = list(discriminator.parameters())
    value = term(batch)
    of_student, *of_discriminator = torch.autograd.grad(value, [z_s, *parameters])

    fooled = skd_generator(discriminator(z_s))
    torch.testing.assert_close(value, fooled)
    torch.testing.assert_close(of_student, torch.autograd.grad(fooled, z_s)[0])
    told = skd_discriminator(discriminator(z_s.detach()), discriminator(batch.teacher.logits))
    expected = [3.0 * gradient for gradient in torch.autograd.grad(told, parameters)]
    torch.testing.assert_close(of_discriminator, expected)


def test_discriminator_takes_small_and_large_maps_and_learns_to_tell() -> None:
    torch.manual_seed(0)
    discriminator = SKDDiscriminator(5, width=4)
    assert discriminator(torch.randn(2, 5, 64, 80)).shape == (2, 1, 1, 2)
    assert discriminator(torch.randn(2, 5, 4, 6)).shape == (2, 1, 1, 1)
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    z_s, z_t = torch.zeros(4, 5, 4, 6), 3 * torch.randn(4, 5, 4, 6)
    losses = []
    for _ in range(40):
        loss = skd_discriminator(discriminator(z_s), discriminator(z_t))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
