"""BPKD: the edges of objects and their bodies, distilled apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._cwd import cwd
from kdscale.losses.dense._maps import IGNORE, refuse_unequal_logits
from kdscale.records import Value


def bpkd_edges(target: Tensor, *, classes: int, grid: tuple[int, int], width: int = 7) -> Tensor:
    """Returns how much of each position is edge of each class, ``[B, C, h, w]`` in [0, 1], float32.

    Of each class's label mask, dilation minus erosion by a width x width square, averaged down to
    the grid of the logits; 0 where there is no label. The image's border is no edge.

    Args:
        target: Labels, int64 ``[B, H, W]``; one outside 0 ... C - 1 is none.
        classes: C.
        grid: h and w.
        width: Of the square, odd.

    Source:
        See `bpkd_edge`.
    """
    numbers = torch.arange(classes, device=target.device).view(-1, 1, 1)
    label = target.where((target >= 0) & (target < classes), IGNORE).unsqueeze(1)
    # A square that holds a class and anything else is dilated into, but eroded away.
    highest, lowest = _highest(label.float(), width), -_highest(-label.float(), width)
    mixed = (highest != lowest) & (label != IGNORE)
    return F.adaptive_avg_pool2d(_highest((label == numbers).float(), width) * mixed, grid)


def _highest(x: Tensor, width: int) -> Tensor:
    """Returns the maximum over a square around each position that lies in the image."""
    rows = F.max_pool2d(x, (width, 1), 1, (width // 2, 0))
    return F.max_pool2d(rows, (1, width), 1, (0, width // 2))


@full_precision
def bpkd_edge(
    z_s: Tensor,
    z_t: Tensor,
    edges: Tensor,
    *,
    temperature: float,
    alpha: float = 2.0,
    count: str = "nonzero",
) -> Tensor:
    """Returns alpha T² mean_b Σ_c Σ_p M_c(p) KL(p) / n_c, a scalar.

    KL(p) is that of the softmaxes over classes of z M / T at position p, teacher first; n_c counts
    the positions of the image with M_c > 0. T² is inside. Zero at student = teacher.

    Args:
        z_s: Student logits ``[B, C, h, w]``.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        edges: M of `bpkd_edges`, ``[B, C, h, w]``.
        temperature: T > 0.
        alpha: Weight of the edges.
        count: n_c: ``nonzero`` positions, or the ``area`` Σ_p M_c(p); at least 1 either way.

    Raises:
        ValueError: The shapes differ or there is no such count.

    Source:
        Liu et al.: BPKD: Boundary Privileged Knowledge Distillation for Semantic Segmentation,
        WACV 2024, arXiv 2306.08075. The official repository AkideLiu/BPKD evaluates only. Written
        after the paper and an unofficial re-implementation (lamnmh05's SegFormer distillation,
        ``src/distillers/bpkd.py``), which takes the area for n_c.
    """
    require_same_maps(z_s, z_t)
    if count not in ("nonzero", "area"):
        raise ValueError(f'count must be "nonzero" or "area", but got "{count}"')
    log_q, log_p = (F.log_softmax(z * edges / temperature, dim=1) for z in (z_s, z_t))
    kl = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    n = (edges > 0 if count == "nonzero" else edges).sum((2, 3), keepdim=True).clamp(min=1)
    weights = (edges / n).sum(dim=1)
    return (kl * weights).sum() * (alpha * temperature**2 / len(z_s))


@full_precision
def bpkd_body(z_s: Tensor, z_t: Tensor, edges: Tensor, *, temperature: float) -> Tensor:
    """Returns `cwd` of the logits times 1 - M, a scalar.

    T² is inside; mean over batch and classes. Zero at student = teacher.

    Args:
        z_s: Student logits ``[B, C, h, w]``.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        edges: M of `bpkd_edges`, ``[B, C, h, w]``.
        temperature: T > 0.

    Raises:
        ValueError: The two shapes differ.

    Source:
        See `bpkd_edge`.
    """
    body = 1 - edges
    return cwd(z_s * body, z_t * body, temperature=temperature)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    alpha = float(hyperparameters["alpha"])
    lambda_edge = float(hyperparameters["lambda_edge"])
    lambda_body = float(hyperparameters["lambda_body"])
    width, count = int(hyperparameters["width"]), str(hyperparameters["count"])

    def term(batch: Batch) -> Tensor:
        z_s, z_t = batch.student.logits, batch.teacher.logits
        _, classes, height, wide = z_s.shape
        edges = bpkd_edges(batch.target, classes=classes, grid=(height, wide), width=width)
        edges = edges.to(z_s.dtype)
        at_edges = bpkd_edge(z_s, z_t, edges, temperature=temperature, alpha=alpha, count=count)
        in_bodies = bpkd_body(z_s, z_t, edges, temperature=temperature)
        return lambda_edge * at_edges + lambda_body * in_bodies

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    width = int(hyperparameters["width"])
    if width % 2 == 0:
        return f"the width of an edge must be odd, but got {width}"
    return refuse_unequal_logits(shapes)


BPKD = Method(
    name="bpkd",
    title="Boundary privileged knowledge distillation",
    source="Liu et al., WACV 2024, arXiv 2306.08075",
    reads=("logits", "labels"),
    hyperparameters=(
        Hyperparameter("lambda_edge", 50.0, "weight of the edges", low=0, search=(1, 100)),
        Hyperparameter("lambda_body", 20.0, "weight of the bodies", low=0, search=(1, 100)),
        Hyperparameter("alpha", 2.0, "multiplies the edges as well", low=0, search=(0.5, 4)),
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits before both softmaxes; both parts carry T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter("width", 7, "width of an edge in pixels of the labels, odd", low=1),
        Hyperparameter(
            "count",
            "nonzero",
            "what an edge's sum is divided by: its nonzero positions (paper) or its area",
            choices=("nonzero", "area"),
        ),
    ),
    build=_build,
    refuse=_refuse,
    dense=True,
)
