"""SKD, pair-wise: cosines between the nodes of a pooled map."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision, require_same_grid
from kdscale.losses.dense._maps import refuse_maps
from kdscale.outputs import present
from kdscale.records import Value

NORM_OFFSET = 1e-8


@full_precision
def skd_pair(f_s: Tensor, f_t: Tensor, *, form: str = "cirkd", scale: float = 0.5) -> Tensor:
    """Returns the mean squared difference of the cosines between all pairs of nodes, a scalar.

    Nodes are what a max pool leaves of an image's map; G_mn is the cosine of nodes m and n over
    channels. Reduction: mean over batch and the n² ordered pairs, (m, m) among them. No
    temperature. Zero at student = teacher; the two may differ in channels. Each form divides as its
    authors do:

    * ``cirkd`` pools 2 x 2 windows and differentiates the channel norm.
    * ``original`` pools windows of ``scale`` times the **teacher's** map in each direction, so that
      2 x 2 to 3 x 3 nodes remain, adds 1e-8 to the channel norm and passes no gradient through it.

    Args:
        f_s: Student map ``[B, D_s, h, w]``.
        f_t: Teacher map ``[B, D_t, h, w]``; nothing is detached here.
        form: ``cirkd`` or ``original``.
        scale: Of the original form: window = int(scale h) x int(scale w), at least 1; 0 does not
            pool.

    Raises:
        ValueError: The grids differ or there is no such form.

    Source:
        Liu et al.: Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019, arXiv
        1903.04197; official code irfanICMLL/structure_knowledge_distillation
        ``utils/criterion.py`` and ``utils/utils.py`` (original, weight 1, 0.5 in its script);
        winycg/CIRKD ``losses/skd.py`` (weight 10).
    """
    require_same_grid(f_s, f_t)
    if form == "cirkd":
        window = (2, 2)
        unit_s, unit_t = (F.normalize(_pool(f, window)) for f in (f_s, f_t))
    elif form == "original":
        window = (max(1, int(scale * f_t.shape[2])), max(1, int(scale * f_t.shape[3])))
        pooled = _pool(f_s, window), _pool(f_t, window)
        unit_s, unit_t = (f / (_norm(f.detach()) + NORM_OFFSET) for f in pooled)
    else:
        raise ValueError(f'form must be "cirkd" or "original", but got "{form}"')
    return (_cosines(unit_s) - _cosines(unit_t)).square().mean()


def _pool(f: Tensor, window: tuple[int, int]) -> Tensor:
    return F.max_pool2d(f, window, window, ceil_mode=True)


def _norm(f: Tensor) -> Tensor:
    return f.square().sum(dim=1, keepdim=True).sqrt()


def _cosines(unit: Tensor) -> Tensor:
    nodes = unit.flatten(2)
    return nodes.transpose(1, 2) @ nodes


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    form, scale = str(hyperparameters["form"]), float(hyperparameters["scale"])

    def term(batch: Batch) -> Tensor:
        f_s, f_t = present(batch.student.map), present(batch.teacher.map)
        return skd_pair(f_s, f_t, form=form, scale=scale)

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_maps(shapes)


SKD_PAIR = Method(
    name="skd_pair",
    title="Structured knowledge distillation, pair-wise",
    source="Liu et al., CVPR 2019, arXiv 1903.04197",
    reads=("map",),
    hyperparameters=(
        Hyperparameter(
            "form",
            "cirkd",
            "whose code: cirkd (2 x 2 pooling, weight 10) or original (few nodes, weight 1)",
            choices=("cirkd", "original"),
        ),
        Hyperparameter(
            "scale",
            0.5,
            "pooling window of form original, as a share of the map; 0 does not pool",
            low=0,
            high=1,
        ),
    ),
    build=_build,
    needs=needs_of_both("map"),
    refuse=_refuse,
    dense=True,
    weight=10.0,
)
