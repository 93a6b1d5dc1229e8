"""IFVD: how far each pixel's feature lies from the centre of its class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision, require_same_grid
from kdscale.losses.dense._maps import labels_at, refuse_maps
from kdscale.outputs import present
from kdscale.records import Value

EPS = 1e-8


@full_precision
def ifvd(f_s: Tensor, f_t: Tensor, target: Tensor, *, classes: int) -> Tensor:
    """Returns the mean squared difference of two maps of cosines to the class centre, a scalar.

    A class's centre is the mean feature of its pixels in **one** image; each pixel's cosine with
    the centre of its label makes the map. Reduction: mean over all B h w pixels; one whose label is
    no class adds 0 but counts. Centres are differentiated. No temperature. Zero at student =
    teacher, and if one network's features are scaled; the two may differ in channels.

    Args:
        f_s: Student map ``[B, D_s, h, w]``.
        f_t: Teacher map ``[B, D_t, h, w]``; nothing is detached here.
        target: Labels, int64 ``[B, H, W]``, taken to h x w by the nearest pixel.
        classes: C; labels outside 0 ... C - 1 are ignored.

    Raises:
        ValueError: The grids differ.

    Source:
        Wang et al.: Intra-class Feature Variation Distillation for Semantic Segmentation, ECCV
        2020; official code YukangWang/IFVD (weight 200) and winycg/CIRKD ``losses/ifvd.py``
        (weight 20). There each class is masked in a loop and an ignored pixel is its own centre,
        with cosine 1 on both sides. Pixel KD and the adversarial part of the recipe are terms of
        their own.
    """
    require_same_grid(f_s, f_t)
    label = labels_at(target, (f_s.shape[2], f_s.shape[3])).flatten(1)
    numbers = torch.arange(classes, device=label.device).unsqueeze(1)
    members = label.unsqueeze(1) == numbers
    difference = _cosines(f_s, members, label) - _cosines(f_t, members, label)
    return torch.where(members.any(dim=1), difference, 0).square().mean()


def _cosines(f: Tensor, members: Tensor, label: Tensor) -> Tensor:
    """Returns each pixel's cosine with its class's centre ``[B, n]``; anything if it has none.

    Args:
        f: Map ``[B, D, h, w]`` of n = h w pixels.
        members: Whether a pixel is of a class, ``[B, C, n]``.
        label: Labels ``[B, n]``.
    """
    pixels = F.normalize(f.flatten(2), dim=1, eps=EPS)
    # The sum has the mean's direction, which is all that a cosine sees.
    centres = F.normalize(members.to(f.dtype) @ f.flatten(2).transpose(1, 2), dim=2, eps=EPS)
    to_all = centres @ pixels
    return to_all.gather(1, label.clamp(0, members.shape[1] - 1).unsqueeze(1)).squeeze(1)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    classes = shapes.student.classes

    def term(batch: Batch) -> Tensor:
        f_s, f_t = present(batch.student.map), present(batch.teacher.map)
        return ifvd(f_s, f_t, batch.target, classes=classes)

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_maps(shapes)


IFVD = Method(
    name="ifvd",
    title="Intra-class feature variation distillation",
    source="Wang et al., ECCV 2020",
    reads=("map", "labels"),
    hyperparameters=(),
    build=_build,
    needs=needs_of_both("map"),
    refuse=_refuse,
    dense=True,
    weight=20.0,
)
