"""DIST on each pixel: correlations within pixels and within classes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._dist import dist
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._maps import pixel_rows, refuse_unequal_logits
from kdscale.records import Value


@full_precision
def dist_dense(
    z_s: Tensor, z_t: Tensor, *, temperature: float, beta: float, gamma: float
) -> Tensor:
    """Returns `kdscale.losses.dist` with each pixel as a sample, a scalar.

    Reduction: inter is a mean over all B h w pixels, intra one correlation over all of them for
    each class, mean over classes; pixels without a label count as any other. T² is over both. Zero
    at student = teacher, up to the 1e-8 in the denominators.

    Args:
        z_s: Student logits ``[B, C, h, w]``.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        temperature: T > 0.
        beta: Weight of inter, the relation among a pixel's classes.
        gamma: Weight of intra, the relation among a class's pixels.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Huang et al.: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv
        2205.10536; official code hunto/DIST_KD ``segmentation/losses/dist_kd.py``: weight 1 at
        T = 1 here, not classification's 2, and 0.4 of the same on an auxiliary head.
    """
    require_same_maps(z_s, z_t)
    rows = pixel_rows(z_s), pixel_rows(z_t)
    return dist(*rows, temperature=temperature, beta=beta, gamma=gamma)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    beta, gamma = float(hyperparameters["beta"]), float(hyperparameters["gamma"])

    def term(batch: Batch) -> Tensor:
        return dist_dense(
            batch.student.logits,
            batch.teacher.logits,
            temperature=temperature,
            beta=beta,
            gamma=gamma,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_logits(shapes)


DIST_DENSE = Method(
    name="dist_dense",
    title="Distillation from a stronger teacher, per pixel",
    source="Huang et al., NeurIPS 2022, arXiv 2205.10536",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            1.0,
            "divides both logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 4),
        ),
        Hyperparameter(
            "beta",
            1.0,
            "weight of inter, the relation among a pixel's classes",
            low=0,
            search=(0.5, 4),
        ),
        Hyperparameter(
            "gamma",
            1.0,
            "weight of intra, the relation among a class's pixels",
            low=0,
            search=(0.5, 4),
        ),
    ),
    build=_build,
    refuse=_refuse,
    couples_batch=True,
    dense=True,
)
