"""SKD, holistic: a discriminator that must not tell student maps from teacher maps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision
from kdscale.losses.dense._maps import (
    refuse_one_value_a_channel,
    refuse_unequal_logits,
)
from kdscale.records import Value

BLOCKS, WINDOW, SLOPE = 4, 4, 0.1
LEAST = WINDOW * 2**BLOCKS
"""The smallest height and width that the discriminator's blocks take."""


@full_precision
def skd_generator(score_s: Tensor) -> Tensor:
    """Returns the student's part of the hinge game, -mean(score_s), a scalar.

    Args:
        score_s: The discriminator's scores of the student's maps, any shape.

    Source:
        See `SKDDiscriminator`.
    """
    return -score_s.mean()


@full_precision
def skd_discriminator(score_s: Tensor, score_t: Tensor) -> Tensor:
    """Returns the discriminator's part, mean(max(0, 1 - t)) + mean(max(0, 1 + s)), a scalar.

    Args:
        score_s: s, its scores of the student's maps, any shape.
        score_t: t, its scores of the teacher's maps, same shape.

    Source:
        See `SKDDiscriminator`.
    """
    return F.relu(1 - score_t).mean() + F.relu(1 + score_s).mean()


class SKDDiscriminator(nn.Module):
    """The holistic part's discriminator: maps of logits to scores, the teacher's to be higher.

    BatchNorm, four 4 x 4 convolutions of stride 2 with spectral norm and leaky ReLU (0.1), each
    twice as wide as the one before, self-attention after the last two, a 4 x 4 convolution to one
    channel. That takes 64 x 64 positions (the authors' networks have 64 x 128); a smaller map gets
    zeros beside and below it after the BatchNorm.

    Args:
        classes: C of the logits.
        width: Channels of the first block.

    Source:
        Liu et al.: Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019, arXiv
        1903.04197, with the discriminator of SAGAN, arXiv 1805.08318. The hinge form is that of
        winycg/CIRKD ``utils/sagan.py`` and ``losses/adv.py`` (weight 0.001 for the student, 0.1 for
        the discriminator); the original repository has WGAN with a gradient penalty and weight 0.1.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(classes)
        widths = [classes, *(width * 2**block for block in range(BLOCKS))]
        body: list[nn.Module] = []
        for block, (before, after) in enumerate(pairwise(widths), start=1):
            body.append(spectral_norm(nn.Conv2d(before, after, WINDOW, stride=2, padding=1)))
            body.append(nn.LeakyReLU(SLOPE))
            if block >= BLOCKS - 1:
                body.append(_SelfAttention(after))
        self.body = nn.Sequential(*body, nn.Conv2d(widths[-1], 1, WINDOW))

    @full_precision
    def forward(self, z: Tensor) -> Tensor:
        """Returns scores ``[B, 1, h', w']``.

        Args:
            z: Logits ``[B, C, h, w]``.
        """
        height, width = z.shape[2:]
        padding = (0, max(0, LEAST - width), 0, max(0, LEAST - height))
        scores: Tensor = self.body(F.pad(self.norm(z), padding))
        return scores


class _SelfAttention(nn.Module):
    """x + gamma attention(x); gamma starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, max(1, width // 8), 1)
        self.key = nn.Conv2d(width, max(1, width // 8), 1)
        self.value = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(self.value.weight.new_zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part(x).flatten(2).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        attended: Tensor = self.gamma * seen.transpose(1, 2).reshape(x.shape)
        return x + attended


class _Term(nn.Module):
    """The student's part; the discriminator's part rides along with value 0 and its own gradient.

    One optimiser steps student and discriminator together. The student's part sees the
    discriminator's parameters detached, the discriminator's part sees the student's logits
    detached, so each gets the gradient of its own loss alone.
    """

    def __init__(self, discriminator: SKDDiscriminator, lambda_d: float) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.lambda_d = lambda_d

    def forward(self, batch: Batch) -> Tensor:
        z_s, z_t = batch.student.logits, batch.teacher.logits
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = skd_generator(functional_call(self.discriminator, frozen, (z_s,)))
        told = skd_discriminator(self.discriminator(z_s.detach()), self.discriminator(z_t))
        return fooled + self.lambda_d * (told - told.detach())


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    discriminator = SKDDiscriminator(shapes.student.classes, int(hyperparameters["width"]))
    return _Term(discriminator, float(hyperparameters["lambda_d"]))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_logits(shapes) or refuse_one_value_a_channel(shapes)


SKD_HOLISTIC = Method(
    name="skd_holistic",
    title="Structured knowledge distillation, holistic (adversarial)",
    source="Liu et al., CVPR 2019, arXiv 1903.04197",
    reads=("logits", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "lambda_d",
            100.0,
            "weight of the discriminator's loss beside the student's (published 0.1 to 0.001, with "
            "an Adam of its own for the discriminator; here the student's optimiser steps both)",
            low=0,
            search=(1, 1000),
        ),
        Hyperparameter("width", 64, "channels of the discriminator's first block", low=1),
    ),
    build=_build,
    refuse=_refuse,
    couples_batch=True,
    dense=True,
    weight=0.001,
)
