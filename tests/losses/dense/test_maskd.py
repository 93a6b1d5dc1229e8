import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdscale.losses import METHODS, Batch
from kdscale.losses.dense import MaskTokens, maskd, maskd_dice, maskd_tokens
from kdscale.outputs import Outputs

from .maps import draw, draw_labels, pair

MASKD = METHODS["maskd"]


def test_is_the_masked_error_with_the_mask_squared() -> None:
    z_s, z_t, masks = draw(2, 5, 3, 4), draw(2, 5, 3, 4, seed=1), draw(2, 3, 3, 4, seed=2).sigmoid()
    expected = 0.0
    for b in range(2):
        for k in range(3):
            error = (masks[b, k] * (z_s[b] - z_t[b])).square().sum((1, 2))
            expected += (error / (masks[b, k].sum() + 1e-5)).sum().item()
    assert maskd(z_s, z_t, masks).item() == pytest.approx(0.5 * expected / 30)
    assert maskd(z_t, z_t, masks) == 0


def test_dice_is_one_for_equal_masks_and_zero_for_disjoint_ones() -> None:
    one = torch.zeros(1, 1, 2, 2)
    one[..., 0, 0] = 1
    equal, disjoint = torch.cat((one, one), dim=1), torch.cat((one, 1 - one), dim=1)
    assert maskd_dice(equal) == pytest.approx(1.0)
    assert maskd_dice(disjoint) == 0
    assert maskd_dice(torch.cat((one, one, 1 - one), dim=1)) == pytest.approx(1 / 3)


def test_tokens_make_sigmoid_masks() -> None:
    torch.manual_seed(0)
    module = MaskTokens(5, tokens=3)
    z_t = draw(2, 5, 3, 4).float()
    masks = module(z_t)
    assert masks.shape == (2, 3, 3, 4)
    torch.testing.assert_close(masks[1, 2, 0, 3], torch.sigmoid(module.tokens[2] @ z_t[1, :, 0, 3]))
    assert module.tokens.abs().max() < 0.05


def test_stage_1_is_the_masked_teachers_cross_entropy_and_the_overlap() -> None:
    z_t, masks, target = draw(2, 5, 3, 4), draw(2, 3, 3, 4).sigmoid(), draw_labels(5, 2, 6, 8)
    masked = (z_t.unsqueeze(1) * masks.unsqueeze(2)).sum(1)
    full = F.interpolate(masked, (6, 8), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(full, target, ignore_index=-1) + maskd_dice(masks)
    torch.testing.assert_close(maskd_tokens(z_t, masks, target), expected)


def build(**given: float) -> nn.Module:
    torch.manual_seed(0)
    term = MASKD.build(pair(), MASKD.complete(given))
    assert isinstance(term, nn.Module)
    return term.double()


@pytest.mark.parametrize(("epoch", "stage"), [(1, 1), (8, 1), (9, 2), (40, 2)])
def test_tokens_train_first_and_the_student_after(epoch: int, stage: int) -> None:
    term = build(stage_1=0.2, tokens=3)
    z_s = draw(2, 5, 3, 4).requires_grad_()
    z_t, target = draw(2, 5, 3, 4, seed=1), draw_labels(5, 2, 6, 8)
    batch = Batch(Outputs(z_s), Outputs(z_t), target, epoch=epoch, epochs=40)
    value = term(batch)
    (tokens,) = term.parameters()
    of_student, of_tokens = torch.autograd.grad(value, [z_s, tokens], allow_unused=True)
    masks = term.masks(z_t)
    if stage == 1:
        torch.testing.assert_close(value, maskd_tokens(z_t, masks, target))
        assert of_student is None
        assert of_tokens.abs().sum() > 0
    else:
        torch.testing.assert_close(value, maskd(z_s, z_t, masks))
        assert of_student.abs().sum() > 0
        assert of_tokens is None
    assert MASKD.skips  # DDP must be told


def test_tokens_learn_to_part() -> None:
    term = build(stage_1=1.0, tokens=3)
    optimiser = torch.optim.SGD(term.parameters(), lr=1.0)
    z_t = draw(2, 5, 4, 6, scale=3)
    batch = Batch(Outputs(draw(2, 5, 4, 6)), Outputs(z_t), z_t.argmax(1))
    before = maskd_dice(term.masks(z_t)).item()
    for _ in range(20):
        optimiser.zero_grad()
        term(batch).backward()
        optimiser.step()
    assert maskd_dice(term.masks(z_t)).item() < before - 0.02
