"""What dense methods share: grids, labels at the grid of the logits, sums in parts, refusals."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kdscale.losses._method import PairShapes, refuse_unequal_classes

IGNORE = -1
"""The label of a pixel that has none."""


def pixel_rows(x: Tensor) -> Tensor:
    """Returns the pixels of a map ``[B, C, h, w]`` as rows ``[B * h * w, C]``, image by image."""
    return x.flatten(2).transpose(1, 2).flatten(0, 1)


def sum_kl(z_s: Tensor, z_t: Tensor, dim: int) -> Tensor:
    """Returns the sum of KL(softmax(z_t) ‖ softmax(z_s)) along ``dim`` over all else, a scalar."""
    log_q, log_p = F.log_softmax(z_s, dim=dim), F.log_softmax(z_t, dim=dim)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True)


def labels_at(target: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns the labels of the nearest pixels on another grid, int64 ``[B, h, w]``.

    Row r of h takes row floor(r H / h), as torch's ``nearest`` interpolation does, in whole
    numbers.

    Args:
        target: Labels, int64 ``[B, H, W]``.
        grid: h and w.
    """
    rows, columns = (
        torch.arange(new, device=target.device) * old // new
        for new, old in zip(grid, target.shape[1:], strict=True)
    )
    return target[:, rows.unsqueeze(1), columns]


def to_label_grid(z: Tensor, target: Tensor) -> Tensor:
    """Returns logits at the labels' size, bilinear with aligned corners, as CIRKD's code does."""
    grid = target.shape[1:]
    if z.shape[2:] == grid:
        return z
    return F.interpolate(z, tuple(grid), mode="bilinear", align_corners=True)


def mean_cross_entropy(z: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Returns the weighted mean cross-entropy of the labelled pixels; 0 if there are none.

    Args:
        z: Logits ``[B, C, H, W]``.
        target: Labels, int64 ``[B, H, W]``, -1 where there is none.
        weight: The classes' weights ``[C]``; None for 1.
    """
    total = F.cross_entropy(z, target, weight, ignore_index=IGNORE, reduction="sum")
    if weight is None:
        return total / (target != IGNORE).sum().clamp(min=1)
    weights = torch.where(target != IGNORE, weight[target.clamp(min=0)], 0)
    return total / weights.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def sum_in_parts(
    function: Callable[..., Tensor], *rows: Tensor, cost: int, limit: int = 2**28
) -> Tensor:
    """Returns the sum of a function over parts of its rows, a scalar.

    A part makes at most ``limit`` numbers (1 GB in float32) unless one row does; if there is more
    than one part, they are computed again in the backward pass, one at a time.

    Args:
        function: Of a part of each tensor in ``rows`` -> scalar.
        rows: Tensors with one length of axis 0.
        cost: Numbers that one row makes.
        limit: Numbers at a time.
    """
    parts = [torch.split(x, max(1, limit // cost)) for x in rows]
    if len(parts[0]) == 1:
        return function(*rows)
    sums = [checkpoint(function, *part, use_reentrant=False) for part in zip(*parts, strict=True)]
    return torch.stack(sums).sum()


def refuse_unequal_logits(shapes: PairShapes) -> str:
    """Returns why two maps of logits cannot be compared pixel by pixel, or an empty string."""
    return refuse_unequal_classes(shapes) or refuse_unequal_grids(shapes)


def refuse_unequal_grids(shapes: PairShapes) -> str:
    """Returns why the two networks' maps are not on one grid, or an empty string.

    The map before the classifier and the logits have one grid.
    """
    student, teacher = shapes.student.map, shapes.teacher.map
    if student is not None and teacher is not None and student[1:] != teacher[1:]:
        return (
            "the maps of student and teacher must have the same height and width, "
            f"but got {student[1]} x {student[2]} and {teacher[1]} x {teacher[2]}"
        )
    return ""


def refuse_maps(shapes: PairShapes) -> str:
    """Returns why the two networks have no maps before the classifier on one grid, or nothing."""
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        if side.map is None:
            return f"the {name} must put out the map before its classifier, but this one has none"
    return refuse_unequal_grids(shapes)


def refuse_one_value_a_channel(shapes: PairShapes) -> str:
    """Returns why BatchNorm has nothing to normalise over, or an empty string."""
    grid = None if shapes.student.map is None else shapes.student.map[1:]
    if grid == (1, 1) and shapes.batch_size < 2:
        return "BatchNorm needs at least 2 values a channel, but batch and map hold 1 pixel"
    return ""


def channels(shapes: PairShapes) -> tuple[int, int]:
    """Returns the channels of the two maps, student first, of a pair with maps."""
    student, teacher = shapes.student.map, shapes.teacher.map
    return (0 if student is None else student[0]), (0 if teacher is None else teacher[0])
