"""What maps of two networks pass through to meet: connectors, and the rules on whom they serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Needs, PairShapes
from kdscale.losses._numerics import full_precision
from kdscale.losses._stages import refuse_stages, stage_pairs
from kdscale.outputs import preactivation, stage
from kdscale.records import Value

MapShape = tuple[int, int, int]
"""(channels, height, width) of a map."""


class Connector(nn.Module):
    """1x1 convolution without bias -> BatchNorm: the student's map at the teacher's channels.

    Args:
        student_channels: C_s of the student's map.
        teacher_channels: C_t of the teacher's map.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(teacher_channels)

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Returns ``[B, C_t, H, W]`` of the student's map ``[B, C_s, H, W]``."""
        connected: Tensor = self.norm(self.conv(features))
        return connected


class SizeRegressor(nn.Module):
    """Convolution -> BatchNorm (-> ReLU): the student's map at the teacher's channels and grid.

    The convolution is 3x3 with stride 2 where the student's grid is twice the teacher's, 4x4
    transposed with stride 2 where it is half, and otherwise has the kernel that shrinks the
    student's grid to the teacher's without padding: 1x1 on equal grids. It has a bias.

    Args:
        student: ``(C_s, H_s, W_s)`` of the student's map.
        teacher: ``(C_t, H_t, W_t)`` of the teacher's map; `refuse_regressor` says what fits.
        relu: Whether a ReLU ends it.

    Source:
        ``ConvReg`` of RepDistiller ``models/util.py`` and mdistiller ``distillers/_common.py``.
    """

    def __init__(self, student: MapShape, teacher: MapShape, *, relu: bool = True) -> None:
        super().__init__()
        (c_s, h_s, w_s), (c_t, h_t, w_t) = student, teacher
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if h_s == 2 * h_t:
            self.conv = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1)
        elif 2 * h_s == h_t:
            self.conv = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1)
        else:
            self.conv = nn.Conv2d(c_s, c_t, (1 + h_s - h_t, 1 + w_s - w_t))
        self.norm = nn.BatchNorm2d(c_t)
        self.activation = nn.ReLU(inplace=True) if relu else nn.Identity()

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Returns ``[B, C_t, H_t, W_t]`` of the student's map ``[B, C_s, H_s, W_s]``."""
        regressed: Tensor = self.activation(self.norm(self.conv(features)))
        return regressed


class AdaptedStages(nn.Module):
    """Σ over the compared stages of a loss between the adapted student map and the teacher's.

    Args:
        pairs: The stages' numbers (student's, teacher's).
        adaptors: For each stage, what the student's map passes through.
        loss: Of (adapted student map, teacher map).
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        adaptors: Iterable[nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.pairs = pairs
        self.adaptors = nn.ModuleList(adaptors)
        self.loss = loss

    def forward(self, batch: Batch) -> Tensor:
        losses = [
            self.loss(adaptor(batch.student.stages[s]), batch.teacher.stages[t])
            for adaptor, (s, t) in zip(self.adaptors, self.pairs, strict=True)
        ]
        return total(losses)


def total(losses: Sequence[Tensor]) -> Tensor:
    """Returns the sum of the stages' losses, at least one."""
    first, *others = losses
    return sum(others, first)


def sum_of_squares(x: Tensor) -> Tensor:
    """Returns Σ x², one kernel forward and one backward."""
    return F.mse_loss(x, x.new_zeros(()).expand_as(x), reduction="sum")


def compared_shapes(shapes: PairShapes, stages: str) -> list[tuple[MapShape, MapShape]]:
    """Returns (student's, teacher's) shape for each stage that ``stages`` names."""
    return [
        (shapes.student.stages[s], shapes.teacher.stages[t]) for s, t in stage_pairs(shapes, stages)
    ]


def needs_stages(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    """Returns the needs of a method that reads the stages of its hyperparameter ``stages``."""
    pairs = stage_pairs(shapes, str(hyperparameters["stages"]))
    return Needs(frozenset(stage(s) for s, _ in pairs), frozenset(stage(t) for _, t in pairs))


def needs_preactivations(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    """Returns the same for a method that reads the stages before their last ReLU."""
    pairs = stage_pairs(shapes, str(hyperparameters["stages"]))
    return Needs(
        frozenset(preactivation(s) for s, _ in pairs), frozenset(preactivation(t) for _, t in pairs)
    )


def refuse_preactivations(shapes: PairShapes) -> str:
    """Returns why the pair has no features before the stages' last ReLU, or an empty string."""
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        if not side.preactivations:
            return (
                f"the {name} must put out its stages' features before their last ReLU, "
                "but this model does not"
            )
    return ""


def refuse_unmatched_grids(shapes: PairShapes, stages: str) -> str:
    """Returns why `match_height` cannot bring the stages to one grid, or an empty string."""
    if reason := refuse_stages(shapes, stages):
        return reason
    for f_s, f_t in compared_shapes(shapes, stages):
        if reason := refuse_unmatched_pair(f_s, f_t):
            return reason
    return ""


def refuse_unmatched_pair(f_s: MapShape, f_t: MapShape) -> str:
    """Returns why `match_height` cannot bring two maps to one grid, or an empty string."""
    grid_s, grid_t = f_s[1:], f_t[1:]
    low = min(grid_s, grid_t)  # the lower map, which pooling leaves as it is
    square = grid_s[0] != grid_t[0] and low[0] == low[1]
    if grid_s == grid_t or square:
        return ""
    return (
        "maps must have one grid, or the lower one must be square, "
        f"but got {_grid(grid_s)} and {_grid(grid_t)}"
    )


def refuse_unequal_grids(shapes: PairShapes, stages: str) -> str:
    """Returns why the stages' maps have not one grid, or an empty string."""
    if reason := refuse_stages(shapes, stages):
        return reason
    for (_, *grid_s), (_, *grid_t) in compared_shapes(shapes, stages):
        if grid_s != grid_t:
            return f"maps must have one grid, but got {_grid(grid_s)} and {_grid(grid_t)}"
    return ""


def refuse_regressor(shapes: PairShapes, stages: str) -> str:
    """Returns why no `SizeRegressor` leads from the student to the teacher, or an empty string."""
    if reason := refuse_stages(shapes, stages):
        return reason
    for (_, h_s, w_s), (_, h_t, w_t) in compared_shapes(shapes, stages):
        if h_s == 2 * h_t:
            fits = w_s == 2 * w_t
        elif 2 * h_s == h_t:
            fits = 2 * w_s == w_t
        else:
            fits = h_s >= h_t and w_s >= w_t
        if not fits:
            return (
                "the student's grid must be half, twice or at least the teacher's, "
                f"but got {h_s}x{w_s} and {h_t}x{w_t}"
            )
    return refuse_one_value(shapes.batch_size, [t for _, t in compared_shapes(shapes, stages)])


def refuse_one_value(batch_size: int, normalised: Iterable[MapShape]) -> str:
    """Returns why BatchNorm cannot normalise maps of these shapes, or an empty string.

    Args:
        batch_size: Images in the global batch.
        normalised: The shapes of the maps.
    """
    for _, height, width in normalised:
        if batch_size * height * width < 2:
            return (
                "BatchNorm needs at least 2 values a channel, "
                f"but got {batch_size} image of {height}x{width}"
            )
    return ""


def _grid(grid: Sequence[int]) -> str:
    return "x".join(str(side) for side in grid)
