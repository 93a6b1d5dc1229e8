"""SDD: distil the logits of image regions at several scales, beside those of the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._dkd import dkd_rows
from kdscale.losses._kd import kd_rows
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    needs_of_both,
    refuse_unequal_classes,
)
from kdscale.losses._nkd import nkd_rows
from kdscale.losses._numerics import full_precision
from kdscale.outputs import present
from kdscale.records import Value

Base = Literal["kd", "dkd", "nkd"]

# The authors pool every map to this grid first and build all scales from it.
GRID = 4


@full_precision
def sdd_regions(class_maps: Tensor, *, scales: Sequence[int]) -> Tensor:
    """Returns the logits of all regions, ``[B, C, N]``, region 0 the whole image if scale 1 leads.

    The map is average-pooled to 4 x 4, then to scale x scale for each scale. The classifier is
    linear, so that a region's logits are the mean of its class maps. On grids that 4 does not
    divide the 4 x 4 windows overlap or repeat, as in the authors' code, and region 0 is near the
    logits but not equal.

    Args:
        class_maps: The classifier at each position ``[B, C, H, W]``.
        scales: Regions a side, each a divisor of 4.

    Source:
        See `sdd`; ``mdistiller/models/cifar/utils.py`` (SPP), where the pooled features pass
        through the classifier afterwards.
    """
    grid = F.adaptive_avg_pool2d(class_maps, GRID)
    regions = [F.avg_pool2d(grid, GRID // scale).flatten(2) for scale in scales]
    return torch.cat(regions, dim=2)


@full_precision
def sdd(
    r_s: Tensor,
    r_t: Tensor,
    target: Tensor,
    *,
    base: Base,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 8.0,
    gamma: float = 1.5,
    disagreement_weight: float = 2.0,
    official_quirks: bool = True,
) -> Tensor:
    """Returns the weighted mean over samples and regions of KD, DKD or NKD, a scalar.

    A region weighs ``disagreement_weight`` where just one of the teacher's predictions, for it and
    for region 0, is the label, else 1. Reduction: sum over classes, sum of the weighted values
    over N B; the weights are not renormalised. T² is inside as in the base. Zero at student =
    teacher for kd and dkd, not for nkd. With one region this is the base itself.

    Args:
        r_s: Student logits of the regions ``[B, C, N]``, region 0 the whole image.
        r_t: Teacher logits of the regions ``[B, C, N]``; nothing is detached here.
        target: Labels, int64 ``[B]``.
        base: The loss of each region.
        temperature: T > 0 of the base.
        alpha: Weight of DKD's TCKD.
        beta: Weight of DKD's NCKD.
        gamma: Weight of NKD's non-target term.
        disagreement_weight: Weight of the regions where the teacher's two predictions differ in
            being right.
        official_quirks: Base nkd keeps the label's class in its non-target term; see Source.

    Raises:
        ValueError: The two shapes differ or are not three-dimensional.

    Source:
        Wei, Luo, Luo: Scale Decoupled Distillation, CVPR 2024, arXiv 2403.13512; official code
        shicaiwei123/SDD-CVPR2024 ``mdistiller/distillers/`` KD.py, SDD_DKD.py, SDD_nkd.py. The NKD
        there inverts the mask that should take the label's class out, so that the "non-target"
        term runs over all classes; the published SD-NKD was trained so, and
        ``official_quirks=False`` gives NKD as its own paper has it. The code zeroes entries that
        are NaN and replaces a loss that is not finite by 0; here both stay finite. It warms DKD
        and NKD up over 20 epochs, and no longer KD, where the warm-up is commented out; scales
        and warm-up come from its command line, not from its configuration files.
    """
    if r_s.ndim != 3 or r_s.shape != r_t.shape:
        raise ValueError(
            f"regions must be [B, C, N] twice, but got {list(r_s.shape)} and {list(r_t.shape)}"
        )
    batch_size, classes, regions = r_s.shape
    z_s = r_s.permute(2, 0, 1).reshape(-1, classes)
    z_t = r_t.permute(2, 0, 1).reshape(-1, classes)
    y = target.repeat(regions)
    if base == "kd":
        rows = kd_rows(z_s, z_t, temperature=temperature)
    elif base == "dkd":
        rows = dkd_rows(z_s, z_t, y, alpha=alpha, beta=beta, temperature=temperature)
    elif official_quirks:
        rows = _nkd_rows_with_target(z_s, z_t, y, temperature, gamma)
    else:
        rows = nkd_rows(z_s, z_t, y, temperature=temperature, gamma=gamma)
    right = r_t.argmax(dim=1) == target.unsqueeze(1)
    disagrees = (right != right[:, :1]).T.reshape(-1)
    weights = 1 + (disagreement_weight - 1) * disagrees.to(rows.dtype)
    return (rows * weights).sum() / (batch_size * regions)


def _nkd_rows_with_target(
    z_s: Tensor, z_t: Tensor, target: Tensor, temperature: float, gamma: float
) -> Tensor:
    """Returns `nkd_rows` with the label's class left in the non-target term, as SDD's code has."""
    p_y = (-F.cross_entropy(z_t, target, reduction="none")).exp()
    target_term = p_y * F.cross_entropy(z_s, target, reduction="none")
    p_t = F.softmax(z_t / temperature, dim=1)
    others = F.cross_entropy(z_s / temperature, p_t, reduction="none")
    return target_term + gamma * temperature**2 * others


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    base = cast("Base", hyperparameters["base"])
    scales = [int(scale) for scale in str(hyperparameters["scales"]).split()]
    temperature = float(hyperparameters["temperature"])
    alpha = float(hyperparameters["alpha"])
    beta = float(hyperparameters["beta"])
    gamma = float(hyperparameters["gamma"])
    disagreement_weight = float(hyperparameters["disagreement_weight"])
    official_quirks = bool(hyperparameters["official_quirks"])

    def term(batch: Batch) -> Tensor:
        return sdd(
            sdd_regions(present(batch.student.class_maps), scales=scales),
            sdd_regions(present(batch.teacher.class_maps), scales=scales),
            batch.target,
            base=base,
            temperature=temperature,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            disagreement_weight=disagreement_weight,
            official_quirks=official_quirks,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        if side.map is None or not side.linear:
            return (
                f"sdd classifies regions, so the {name} must have a linear classifier on the mean "
                "of a map, but this model has none"
            )
    return refuse_unequal_classes(shapes)


SDD = Method(
    name="sdd",
    title="Scale decoupled distillation",
    source="Wei, Luo, Luo, CVPR 2024, arXiv 2403.13512",
    reads=("class maps", "labels"),
    hyperparameters=(
        Hyperparameter("base", "kd", "the loss of each region", choices=("kd", "dkd", "nkd")),
        Hyperparameter(
            "scales",
            "1 2",
            "regions a side: the whole image, 2 x 2 and 4 x 4 parts of it",
            choices=("1", "1 2", "1 2 4"),
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter("alpha", 1.0, "weight of TCKD; base dkd alone", low=0, search=(0.5, 2)),
        Hyperparameter("beta", 8.0, "weight of NCKD; base dkd alone", low=0, search=(0.25, 10)),
        Hyperparameter(
            "gamma", 1.5, "weight of the non-target term; base nkd alone", low=0, search=(0.5, 8)
        ),
        Hyperparameter(
            "disagreement_weight",
            2.0,
            "weight of regions where the teacher is right and for the image wrong, or vice versa",
            low=0,
            search=(1, 4),
        ),
        Hyperparameter(
            "official_quirks", True, "nkd keeps the label's class in its non-target term"
        ),
    ),
    build=_build,
    refuse=_refuse,
    needs=needs_of_both("class_maps"),
)
