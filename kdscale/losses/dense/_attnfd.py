"""AttnFD: feature maps refined by channel and spatial attention, compared in direction."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import compared_shapes, refuse_unequal_grids
from kdscale.losses._method import Method, Needs, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses._stages import stage_pairs, stages_hyperparameter
from kdscale.losses.dense._maps import channels, refuse_maps, refuse_one_value_a_channel
from kdscale.outputs import present, stage
from kdscale.records import Value

REDUCTION = 16
SPATIAL_WINDOW = 7
EPS = 1e-12


@full_precision
def attnfd(r_s: Tensor, r_t: Tensor) -> Tensor:
    """Returns ‖r_s / ‖r_s‖ - r_t / ‖r_t‖‖² / B, a scalar.

    The norms run over the **whole batch**, so the value is at most 4 / B and falls with the batch,
    as if divided by B twice. Zero at student = teacher, and if a map is scaled.

    Args:
        r_s: The student's refined map ``[B, D, h, w]``, in the teacher's channels.
        r_t: The teacher's refined map ``[B, D, h, w]``; nothing is detached here.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Mansourian et al.: Attention-guided Feature Distillation for Semantic Segmentation, arXiv
        2403.05451; official code AmirMansurian/AttnFD ``distiller.py`` and ``cbam.py``. There the
        connectors train in the first epoch alone and the student's attention in part (its linear
        layers are in no parameter group); here both train all the time. The teacher's BatchNorm
        runs in training mode there.
    """
    require_same_maps(r_s, r_t)
    difference = _unit(r_s) - _unit(r_t)
    return difference.square().sum() / len(r_s)


def _unit(r: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(r)
    return r / norm.clamp(min=EPS)


@full_precision
def attnfd_teacher(f_t: Tensor) -> Tensor:
    """Returns the map refined by attention without parameters, same shape.

    Channels by sigmoid(mean + maximum over positions), then positions by sigmoid(maximum + mean
    over channels).

    Args:
        f_t: Map ``[B, D, h, w]``.

    Source:
        See `attnfd`.
    """
    refined = f_t * torch.sigmoid(f_t.mean((2, 3), keepdim=True) + f_t.amax((2, 3), keepdim=True))
    position = refined.amax(dim=1, keepdim=True) + refined.mean(dim=1, keepdim=True)
    return refined * torch.sigmoid(position)


class CBAM(nn.Module):
    """The student's convolutional block attention: channels, then positions, both learned.

    Channels by sigmoid(mlp(mean) + mlp(maximum)), an mlp with D // 16 hidden units (at least 1);
    positions by sigmoid of BatchNorm of a 7 x 7 convolution of maximum and mean over channels.

    Args:
        dims: D, channels of the map.

    Source:
        Woo et al.: CBAM, ECCV 2018, arXiv 1807.06521, as in `attnfd`'s code.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        hidden = max(1, dims // REDUCTION)
        self.mlp = nn.Sequential(nn.Linear(dims, hidden), nn.ReLU(), nn.Linear(hidden, dims))
        self.spatial = nn.Conv2d(2, 1, SPATIAL_WINDOW, padding=SPATIAL_WINDOW // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)

    @full_precision
    def forward(self, f: Tensor) -> Tensor:
        """Returns the refined map, same shape.

        Args:
            f: Map ``[B, D, h, w]``.
        """
        maximum = F.adaptive_max_pool2d(f, 1).flatten(1)
        channel = torch.sigmoid(self.mlp(f.mean((2, 3))) + self.mlp(maximum))
        refined = f * channel[:, :, None, None]
        pooled = (refined.max(dim=1, keepdim=True).values, refined.mean(dim=1, keepdim=True))
        return refined * torch.sigmoid(self.norm(self.spatial(torch.cat(pooled, dim=1))))


class AttnFDConnector(nn.Module):
    """`CBAM` of the student's map, then 1x1 convolution and BatchNorm to the teacher's channels.

    Args:
        student_dims: D_s.
        teacher_dims: D_t.

    Source:
        See `attnfd`. The convolution starts normal with variance 2 / D_t.
    """

    def __init__(self, student_dims: int, teacher_dims: int) -> None:
        super().__init__()
        self.attention = CBAM(student_dims)
        self.align = nn.Conv2d(student_dims, teacher_dims, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(teacher_dims)
        nn.init.normal_(self.align.weight, std=(2 / teacher_dims) ** 0.5)

    @full_precision
    def forward(self, f_s: Tensor) -> Tensor:
        """Returns the refined map ``[B, D_t, h, w]``.

        Args:
            f_s: Student map ``[B, D_s, h, w]``.
        """
        refined: Tensor = self.norm(self.align(self.attention(f_s)))
        return refined


class _Term(nn.Module):
    """The sum over the chosen stages and the map before the classifier."""

    def __init__(self, pairs: list[tuple[int, int]], dims: list[tuple[int, int]]) -> None:
        super().__init__()
        self.pairs = pairs
        self.connectors = nn.ModuleList(AttnFDConnector(*both) for both in dims)

    def forward(self, batch: Batch) -> Tensor:
        maps = [(batch.student.stages[s], batch.teacher.stages[t]) for s, t in self.pairs]
        maps.append((present(batch.student.map), present(batch.teacher.map)))
        losses = [
            attnfd(connector(f_s), attnfd_teacher(f_t))
            for connector, (f_s, f_t) in zip(self.connectors, maps, strict=True)
        ]
        return torch.stack(losses).sum()


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    stages = str(hyperparameters["stages"])
    dims = [(s[0], t[0]) for s, t in compared_shapes(shapes, stages)]
    return _Term(stage_pairs(shapes, stages), [*dims, channels(shapes)])


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    pairs = stage_pairs(shapes, str(hyperparameters["stages"]))
    return Needs(
        frozenset({"map", *(stage(s) for s, _ in pairs)}),
        frozenset({"map", *(stage(t) for _, t in pairs)}),
    )


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return (
        refuse_maps(shapes)
        or refuse_unequal_grids(shapes, str(hyperparameters["stages"]))
        or refuse_one_value_a_channel(shapes)
    )


ATTNFD = Method(
    name="attnfd",
    title="Attention-guided feature distillation",
    source="Mansourian et al., arXiv 2403.05451",
    reads=("stages", "map", "adaptor"),
    hyperparameters=(
        stages_hyperparameter("3 4", "stages compared beside the map before the classifier"),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    couples_batch=True,
    dense=True,
    weight=2.0,
)
