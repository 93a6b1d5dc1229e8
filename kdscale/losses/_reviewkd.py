"""ReviewKD: each student stage, fused with all deeper ones, imitates the teacher's stage.

The published warm-up is the study's schedule: ``warmup_epochs: 20`` on CIFAR-100, 1 on ImageNet,
epochs counted from 1 (mdistiller); the authors' own code counts from 0. mdistiller's ImageNet files
ask for at most 256 middle channels for ResNet-50 to MobileNetV1, but its code never reads that:
512 is the limit, as here. Stage features of the student come after their ReLU on CIFAR-100 and
before it on ImageNet (``student_features``); the teacher's always before it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, Needs, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses._stages import refuse_stages, stage_pairs, stages_hyperparameter
from kdscale.outputs import Need, Outputs, preactivation, present, stage
from kdscale.records import Value

LEVELS = (4, 2, 1)
MAX_MIDDLE_CHANNELS = 512
FEATURES = ("stage", "preactivation")


@full_precision
def hcl(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Returns the hierarchical context loss of one pair of maps, a scalar.

    The mean squared difference of the maps, plus 1/2, 1/4 and 1/8 of that of the maps average-
    pooled to 4 x 4, 2 x 2 and 1 x 1, divided by the sum of the weights. Of the pooled sizes only
    those below H count; the weights go to them in this order. Reduction: mean over batch,
    channels and positions. Zero at student = teacher.

    Args:
        f_s: Student map ``[B, C, H, W]`` out of the fusion.
        f_t: Teacher map, same shape; nothing is detached here.

    Raises:
        ValueError: The shapes differ.

    Source:
        Chen et al.: Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv 2104.09044;
        official code dvlab-research/ReviewKD ``CIFAR-100/model/reviewkd.py``, the same in
        mdistiller ``distillers/ReviewKD.py``. Pooling is linear, so the difference is pooled
        instead of both maps.
    """
    require_same_maps(f_s, f_t)
    height, width = f_s.shape[2:]
    pooled = difference = f_s - f_t
    total, weights, weight = difference.square().mean(), 1.0, 1.0
    # Where the cells of 4 x 4 do not overlap, those of 2 x 2 and 1 x 1 are their means.
    nested = height % LEVELS[0] == 0 and width % LEVELS[0] == 0
    for level in LEVELS:
        if level >= height:
            continue
        weight /= 2
        pooled = F.adaptive_avg_pool2d(pooled if nested else difference, level)
        total = total + weight * pooled.square().mean()
        weights += weight
    return total / weights


class ABF(nn.Module):
    """Attention-based fusion: one stage's features and the residual of the deeper stages.

    The stage goes through a 1x1 convolution and BatchNorm; two sigmoid maps, computed from it and
    the upsampled residual, weigh the two in their sum. The sum is the residual for the next
    shallower stage; a 3x3 convolution and BatchNorm make the student's map of it.

    Args:
        channels: C_s of the student's stage.
        middle: Channels of the residual.
        teacher_channels: C_t of the teacher's stage.
        fuse: Whether there is a deeper stage.

    Source:
        As `hcl`. Convolutions without bias start from He's uniform distribution with slope 1.
    """

    def __init__(self, channels: int, middle: int, teacher_channels: int, *, fuse: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, middle, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(middle)
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuse else None
        self.expand = nn.Conv2d(middle, teacher_channels, 3, padding=1, bias=False)
        self.expand_norm = nn.BatchNorm2d(teacher_channels)
        nn.init.kaiming_uniform_(self.reduce.weight, a=1)
        nn.init.kaiming_uniform_(self.expand.weight, a=1)

    def forward(
        self, features: Tensor, residual: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Returns the student's map ``[B, C_t, *size]`` and the residual ``[B, middle, *size]``.

        Args:
            features: The student's stage ``[B, C_s, H, W]``.
            residual: The residual of the next deeper stage; None if there is none.
            size: Height and width of the teacher's stage.
        """
        fused = self.reduce_norm(self.reduce(features))
        if self.attention is not None:
            deeper = F.interpolate(present(residual), fused.shape[2:], mode="nearest")
            gates = self.attention(torch.cat([fused, deeper], dim=1)).sigmoid()
            fused = fused * gates[:, :1] + deeper * gates[:, 1:]
        if fused.shape[2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.expand_norm(self.expand(fused)), fused


class _ReviewTerm(nn.Module):
    """Σ over stages and the pooled embedding of `hcl`, deepest to shallowest."""

    def __init__(self, shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> None:
        super().__init__()
        self.pairs = stage_pairs(shapes, str(hyperparameters["stages"]))
        self.kinds = (
            str(hyperparameters["student_features"]),
            str(hyperparameters["teacher_features"]),
        )
        channels = [
            *((shapes.student.stages[s][0], shapes.teacher.stages[t][0]) for s, t in self.pairs),
            (shapes.student.embedding, shapes.teacher.embedding),
        ]
        middle = min(MAX_MIDDLE_CHANNELS, shapes.student.embedding)
        deepest = len(channels) - 1
        self.fusions = nn.ModuleList(
            ABF(c_s, middle, c_t, fuse=place < deepest) for place, (c_s, c_t) in enumerate(channels)
        )

    def forward(self, batch: Batch) -> Tensor:
        students = _maps(batch.student, [s for s, _ in self.pairs], self.kinds[0])
        teachers = _maps(batch.teacher, [t for _, t in self.pairs], self.kinds[1])
        losses: list[Tensor] = []
        residual: Tensor | None = None
        for fusion, f_s, f_t in reversed(list(zip(self.fusions, students, teachers, strict=True))):
            imitation, residual = fusion(f_s, residual, tuple(f_t.shape[2:]))
            losses.append(hcl(imitation, f_t))
        return torch.stack(losses).sum()


def _maps(outputs: Outputs, numbers: list[int], kind: str) -> list[Tensor]:
    """Returns the stages' maps and, as the deepest one, the embedding as a map of one position."""
    maps = outputs.preactivations if kind == "preactivation" else outputs.stages
    embedding = present(outputs.embedding)
    return [*(maps[number] for number in numbers), embedding[:, :, None, None]]


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    return _ReviewTerm(shapes, hyperparameters)


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    pairs = stage_pairs(shapes, str(hyperparameters["stages"]))

    def needs(numbers: list[int], kind: Value) -> frozenset[Need]:
        need = preactivation if kind == "preactivation" else stage
        return frozenset({"embedding", *(need(number) for number in numbers)})

    return Needs(
        needs([s for s, _ in pairs], hyperparameters["student_features"]),
        needs([t for _, t in pairs], hyperparameters["teacher_features"]),
    )


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if reason := refuse_stages(shapes, str(hyperparameters["stages"])):
        return reason
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        option = f"{name}_features"
        if hyperparameters[option] == "preactivation" and not side.preactivations:
            return (
                f"the {name} must put out features before its stages' last ReLU, but this model "
                f"has none; {option}: stage takes those after it"
            )
    if shapes.batch_size < 2:
        return (
            "reviewkd normalises over the batch, so the global batch must hold at least 2 images, "
            f"but got {shapes.batch_size}"
        )
    return ""


REVIEWKD = Method(
    name="reviewkd",
    title="Knowledge review",
    source="Chen et al., CVPR 2021, arXiv 2104.09044",
    reads=("stages", "pre-activations", "embedding", "adaptor"),
    hyperparameters=(
        stages_hyperparameter("all", "stages to compare, beside the embedding"),
        Hyperparameter(
            "teacher_features",
            "preactivation",
            "the teacher's stages before (preactivation) or after (stage) their last ReLU",
            choices=FEATURES,
        ),
        Hyperparameter(
            "student_features",
            "stage",
            "the student's: stage on CIFAR-100, preactivation on ImageNet (mdistiller)",
            choices=FEATURES,
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    couples_batch=True,
    weight=5.0,
)
