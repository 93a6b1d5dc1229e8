"""LDRLD on each pixel: a candidate for the unpublished "RLD" of dense result tables."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._ldrld import LDRLD, ldrld
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._maps import pixel_rows, refuse_unequal_logits
from kdscale.records import Value


@full_precision
def ldrld_candidate(
    z_s: Tensor, z_t: Tensor, *, alpha: float, beta: float, depth: int, temperature: float
) -> Tensor:
    """Returns `kdscale.losses.ldrld` with each pixel as a sample, a scalar.

    Reduction: mean over all B h w pixels, without regard to labels. T² is inside both parts. Zero
    at student = teacher.

    **A candidate.** Result tables of dense distillation quote a method "RLD" without a formula or
    code; its published numbers are not this loss's.

    Args:
        z_s: Student logits ``[B, C, h, w]``.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        alpha: Weight of the local part.
        beta: Weight of the remaining classes.
        depth: d, 2 <= d <= C - 2.
        temperature: T > 0.

    Raises:
        ValueError: The two shapes differ or ``depth`` is out of bounds.

    Source:
        Own composition of Xu et al., ICCV 2025, arXiv 2507.15911, which is about classification.
    """
    require_same_maps(z_s, z_t)
    return ldrld(
        pixel_rows(z_s),
        pixel_rows(z_t),
        alpha=alpha,
        beta=beta,
        depth=depth,
        temperature=temperature,
    )


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    alpha = float(hyperparameters["alpha"])
    beta = float(hyperparameters["beta"])
    depth = int(hyperparameters["depth"])
    temperature = float(hyperparameters["temperature"])

    def term(batch: Batch) -> Tensor:
        return ldrld_candidate(
            batch.student.logits,
            batch.teacher.logits,
            alpha=alpha,
            beta=beta,
            depth=depth,
            temperature=temperature,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return LDRLD.refuse(shapes, hyperparameters) or refuse_unequal_logits(shapes)


LDRLD_CANDIDATE = Method(
    name="ldrld_candidate",
    title="LDRLD per pixel (candidate)",
    source="own composition of Xu et al., ICCV 2025, arXiv 2507.15911",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "alpha", 1.0, "weight of the local part: pairs and group", low=0, search=(0.1, 12)
        ),
        Hyperparameter(
            "beta", 1.0, "weight of RNTK, the classes below the top ones", low=0, search=(0.025, 9)
        ),
        Hyperparameter(
            "depth",
            3,
            "recursion depth d: how many of the student's top classes; at most classes - 2",
            low=2,
            search=(3, 7),
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits before every softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 4),
        ),
    ),
    build=_build,
    refuse=_refuse,
    dense=True,
)
