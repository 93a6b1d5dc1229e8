"""SemCKD: let each student stage learn from all teacher stages, weighed by attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import refuse_unmatched_pair
from kdscale.losses._method import Hyperparameter, Method, Needs, PairShapes, Term
from kdscale.losses._numerics import full_precision
from kdscale.losses._stages import ALL, match_height, refuse_stages
from kdscale.outputs import OutputShapes, stage
from kdscale.records import Value

FACTOR = 4


class CrossStageAttention(nn.Module):
    """SemCKD's trainable part: attention over the teacher's stages and a projection for each pair.

    It trains with the student and is thrown away after training.

    Args:
        student_channels: Channels of the student's stages.
        teacher_channels: Channels of the teacher's stages.
        batch_size: B; rows of B x B similarity matrices are what the attention's two-layer
            perceptrons (B -> 2 (B // 4) -> B // 4) read, so it is part of their shape. B >= 4.
        soft: Divides the attention's energies, > 0.

    Source:
        Chen et al.: Cross-Layer Distillation with Semantic Calibration, AAAI 2021, arXiv
        2012.03236; official code DefangChen/SemCKD ``models/util.py`` (SelfA) and
        ``distiller_zoo/SemCKD.py``; the same with the scale ``soft``, which the first has not,
        DefangChen/SimKD ``models/util.py``. The perceptrons read the similarities by place, so the
        value depends on the order of the batch. Under several workers the code builds them for
        each GPU's share; here they read the global batch.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        batch_size: int,
        soft: float = 1.0,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.soft = soft
        self.queries = nn.ModuleList(_perceptron(batch_size) for _ in student_channels)
        self.keys = nn.ModuleList(_perceptron(batch_size) for _ in teacher_channels)
        self.projections = nn.ModuleList(
            _projection(s, t) for s in student_channels for t in teacher_channels
        )

    @full_precision
    def forward(self, *stages: Tensor) -> Tensor:
        """Returns Σ_bij w_bij d_bij / (B n_s), a scalar.

        d_bij is the mean squared error of image b between the projected student stage i and the
        teacher's stage j, the higher of the two maps pooled to the lower one's height; w_b i . is
        a softmax over the teacher's stages of ⟨query, key⟩ / soft. Queries and keys are unit
        vectors, read from row b of F Fᵀ of a stage's flattened features; the gradient runs through
        them too. Reduction: mean over elements, images and student stages.

        Args:
            stages: The student's stage features ``[B, C_i, H_i, W_i]``, then the teacher's.

        Raises:
            ValueError: B is not the batch size that the module was built for.
        """
        f_s, f_t = stages[: len(self.queries)], stages[len(self.queries) :]
        if len(f_s[0]) != self.batch_size:
            raise ValueError(
                f"semckd was built for a batch of {self.batch_size}, but got {len(f_s[0])}"
            )
        weights = self.attention(*stages)
        distances = torch.stack([self._distances(i, f, f_t) for i, f in enumerate(f_s)], dim=1)
        return (weights * distances).sum() / (self.batch_size * len(f_s))

    @full_precision
    def attention(self, *stages: Tensor) -> Tensor:
        """Returns how much student stage i of image b heeds teacher stage j, ``[B, n_s, n_t]``.

        Args:
            stages: The student's stage features ``[B, C_i, H_i, W_i]``, then the teacher's.
        """
        queries = _read(self.queries, stages[: len(self.queries)])
        keys = _read(self.keys, stages[len(self.queries) :])
        return torch.softmax(queries @ keys.transpose(1, 2) / self.soft, dim=2)

    def _distances(self, number: int, feature: Tensor, f_t: Sequence[Tensor]) -> Tensor:
        """Returns the mean squared errors of a student stage to the teacher's, ``[B, n_t]``."""
        errors = []
        for j, teacher_feature in enumerate(f_t):
            source, target = match_height(feature, teacher_feature)
            project = self.projections[number * len(f_t) + j]
            errors.append((project(source) - target).square().mean(dim=(1, 2, 3)))
        return torch.stack(errors, dim=1)


def _read(perceptrons: nn.ModuleList, features: Sequence[Tensor]) -> Tensor:
    """Returns unit queries or keys ``[B, n, B // 4]``, one for each image and stage."""
    units = []
    for perceptron, feature in zip(perceptrons, features, strict=True):
        rows = feature.flatten(1)
        units.append(F.normalize(perceptron(rows @ rows.T)))
    return torch.stack(units, dim=1)


def _perceptron(batch_size: int) -> nn.Module:
    dims = batch_size // FACTOR
    return nn.Sequential(
        nn.Linear(batch_size, 2 * dims), nn.ReLU(inplace=True), nn.Linear(2 * dims, dims)
    )


def _projection(student_channels: int, teacher_channels: int) -> nn.Module:
    """Returns 1x1, 3x3 and 1x1 convolutions to the teacher's channels, twice as wide inside."""
    wide = 2 * teacher_channels
    return nn.Sequential(
        nn.Conv2d(student_channels, wide, 1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(inplace=True),
        nn.Conv2d(wide, wide, 3, padding=1, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(inplace=True),
        nn.Conv2d(wide, teacher_channels, 1, bias=False),
    )


def _numbers(shapes: OutputShapes) -> range:
    """Returns the numbers of a network's stages after the stem."""
    return range(shapes.stem, len(shapes.stages))


class _Term(nn.Module):
    """SemCKD between all stages of the two networks."""

    def __init__(self, attention: CrossStageAttention, student: range, teacher: range) -> None:
        super().__init__()
        self.attention = attention
        self.student, self.teacher = student, teacher

    def forward(self, batch: Batch) -> Tensor:
        f_s = [batch.student.stages[k] for k in self.student]
        f_t = [batch.teacher.stages[k] for k in self.teacher]
        loss: Tensor = self.attention(*f_s, *f_t)
        return loss


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    student, teacher = _numbers(shapes.student), _numbers(shapes.teacher)
    attention = CrossStageAttention(
        [shapes.student.stages[k][0] for k in student],
        [shapes.teacher.stages[k][0] for k in teacher],
        shapes.batch_size,
        float(hyperparameters["soft"]),
    )
    return _Term(attention, student, teacher)


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    return Needs(
        frozenset(stage(k) for k in _numbers(shapes.student)),
        frozenset(stage(k) for k in _numbers(shapes.teacher)),
    )


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < FACTOR:
        return (
            f"semckd reads attention from the batch, which must hold at least {FACTOR} images, "
            f"but got {shapes.batch_size}"
        )
    if reason := refuse_stages(shapes, ALL):
        return reason
    for s in _numbers(shapes.student):
        for t in _numbers(shapes.teacher):
            maps = shapes.student.stages[s], shapes.teacher.stages[t]
            if reason := refuse_unmatched_pair(*maps):
                return reason
    return ""


SEMCKD = Method(
    name="semckd",
    title="Semantic calibration for cross-layer distillation",
    source="Chen et al., AAAI 2021, arXiv 2012.03236",
    reads=("stages", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "soft",
            1.0,
            "divides the attention's energies, which lie in [-1, 1]",
            low=0,
            low_open=True,
            search=(0.1, 10),
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    couples_batch=True,
    weight=400.0,
)
