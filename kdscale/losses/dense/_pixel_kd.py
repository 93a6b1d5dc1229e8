"""Pixel KD: match the teacher's softened class probabilities at each pixel."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._maps import refuse_unequal_logits, sum_kl
from kdscale.records import Value


@full_precision
def pixel_kd(z_s: Tensor, z_t: Tensor, *, temperature: float) -> Tensor:
    """Returns T² mean over pixels of KL(softmax(z_t / T) ‖ softmax(z_s / T)), a scalar.

    Reduction: sum over classes, mean over all B h w pixels; pixels without a label count as any
    other. T² is inside. Zero at student = teacher. It is `kdscale.losses.kd` of the pixels as rows.

    Args:
        z_s: Student logits ``[B, C, h, w]``, at the resolution of the network's head.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        temperature: T > 0.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Hinton et al., arXiv 1503.02531, pixel by pixel as in Yang et al.: Cross-Image Relational
        Knowledge Distillation, CVPR 2022, arXiv 2204.06986; official code winycg/CIRKD
        ``losses/kd.py`` at 2d8ad0f.
    """
    require_same_maps(z_s, z_t)
    kl = sum_kl(z_s / temperature, z_t / temperature, dim=1)
    return kl * (temperature**2 / z_s[:, 0].numel())


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])

    def term(batch: Batch) -> Tensor:
        return pixel_kd(batch.student.logits, batch.teacher.logits, temperature=temperature)

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_logits(shapes)


PIXEL_KD = Method(
    name="pixel_kd",
    title="Pixel-wise knowledge distillation",
    source="Hinton, Vinyals, Dean, arXiv 1503.02531; per pixel: Yang et al., CVPR 2022",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            1.0,
            "divides both logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
    ),
    build=_build,
    refuse=_refuse,
    dense=True,
)
