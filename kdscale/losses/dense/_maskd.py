"""MasKD: regions found by learned tokens on the teacher's logits, compared one by one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._maps import mean_cross_entropy, refuse_unequal_logits, to_label_grid
from kdscale.records import Value

AREA_OFFSET = 1e-5
DICE_OFFSET = 1e-12
TOKEN_STD = 0.01


@full_precision
def maskd(z_s: Tensor, z_t: Tensor, masks: Tensor) -> Tensor:
    """Returns half the mean squared error of the masked logits (stage 2), a scalar.

    ½ mean over images, masks k and classes of Σ_p m_k(p)² (z_s - z_t)(p)² / (Σ_p m_k(p) + 1e-5).
    The mask stands inside the square, hence m². Zero at student = teacher. No temperature.

    Args:
        z_s: Student logits ``[B, C, h, w]``.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        masks: m, in [0, 1], ``[B, K, h, w]``; see `MaskTokens`.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        Huang et al.: Masked Distillation with Receptive Tokens, ICLR 2023, arXiv 2205.14589;
        official code hunto/MasKD ``segmentation/losses/maskd.py``, which makes all K copies of both
        maps; here it is one matrix product of m² and the squared error.
    """
    require_same_maps(z_s, z_t)
    regions = masks.flatten(2)
    error = (z_s - z_t).square().flatten(2)
    sums = regions.square() @ error.transpose(1, 2)
    return 0.5 * (sums / (regions.sum(dim=2, keepdim=True) + AREA_OFFSET)).mean()


@full_precision
def maskd_dice(masks: Tensor) -> Tensor:
    """Returns the mean overlap of two different masks of an image, a scalar in [0, 1].

    The overlap is the dice coefficient 2 Σ ab / (Σ a² + Σ b²); mean over the batch and the
    K (K - 1) ordered pairs. 1 if all masks are equal.

    Args:
        masks: ``[B, K, h, w]``, K >= 2.

    Source:
        See `maskd`.
    """
    regions = masks.flatten(2)
    products = regions @ regions.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2) + DICE_OFFSET
    dice = 2 * products / (squares.unsqueeze(1) + squares.unsqueeze(2))
    batch_size, count, _ = dice.shape
    off_diagonal = dice.sum() - dice.diagonal(dim1=1, dim2=2).sum()
    return off_diagonal / (batch_size * count * (count - 1))


class MaskTokens(nn.Module):
    """MasKD's receptive tokens: K vectors over the classes, normal with standard deviation 0.01.

    Args:
        classes: C of the teacher's logits.
        tokens: K >= 2.

    Source:
        See `maskd`.
    """

    def __init__(self, classes: int, tokens: int = 8) -> None:
        super().__init__()
        self.tokens = nn.Parameter(TOKEN_STD * torch.randn(tokens, classes))

    @full_precision
    def forward(self, z_t: Tensor) -> Tensor:
        """Returns the masks sigmoid(token_k · z_t(p)), ``[B, K, h, w]``.

        Args:
            z_t: Teacher logits ``[B, C, h, w]``.
        """
        batch_size, _, height, width = z_t.shape
        scores = self.tokens @ z_t.flatten(2)
        return torch.sigmoid(scores).view(batch_size, -1, height, width)


@full_precision
def maskd_tokens(z_t: Tensor, masks: Tensor, target: Tensor) -> Tensor:
    """Returns what the tokens minimise (stage 1): masked teacher's cross-entropy + `maskd_dice`.

    The logits Σ_k m_k z_t are taken to the labels' size (bilinear) for the cross-entropy, mean over
    labelled pixels.

    Args:
        z_t: Teacher logits ``[B, C, h, w]``.
        masks: m, ``[B, K, h, w]``, with the tokens' gradient.
        target: Labels, int64 ``[B, H, W]``, -1 where there is none.

    Source:
        See `maskd`; ``segmentation/train_mask_module.py``, whose auxiliary head adds a constant.
    """
    masked = z_t * masks.sum(dim=1, keepdim=True)
    return mean_cross_entropy(to_label_grid(masked, target), target) + maskd_dice(masks)


class _Term(nn.Module):
    """Stage 1 in the first epochs, with a gradient for the tokens alone; then stage 2."""

    def __init__(self, masks: MaskTokens, stage_1: float) -> None:
        super().__init__()
        self.masks = masks
        self.stage_1 = stage_1

    def forward(self, batch: Batch) -> Tensor:
        z_t = batch.teacher.logits
        masks = self.masks(z_t)
        if batch.epoch > round(self.stage_1 * batch.epochs):
            return maskd(batch.student.logits, z_t, masks.detach())
        return maskd_tokens(z_t, masks, batch.target)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    masks = MaskTokens(shapes.teacher.classes, int(hyperparameters["tokens"]))
    return _Term(masks, float(hyperparameters["stage_1"]))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_logits(shapes)


MASKD = Method(
    name="maskd",
    title="Masked distillation with receptive tokens",
    source="Huang et al., ICLR 2023, arXiv 2205.14589",
    reads=("logits", "labels", "adaptor"),
    hyperparameters=(
        Hyperparameter("tokens", 8, "K, how many masks", low=2, search=(2, 16)),
        Hyperparameter(
            "stage_1",
            0.2,
            "share of the epochs in which the tokens alone train, before they distil (published: "
            "10k iterations of their own before 40k; let the cross-entropy start as late too to "
            "leave the student as it is)",
            low=0,
            high=1,
        ),
    ),
    build=_build,
    refuse=_refuse,
    couples_batch=True,
    dense=True,
    skips=True,
)
