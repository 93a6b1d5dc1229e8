"""MGD: generate the teacher's whole map from a masked student map."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import (
    MapShape,
    compared_shapes,
    needs_stages,
    refuse_unequal_grids,
    total,
)
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses._stages import stage_pairs, stages_hyperparameter
from kdscale.records import Value


@full_precision
def mgd(generated: Tensor, f_t: Tensor) -> Tensor:
    """Returns (1/B) Σ (generated - f_t)², a scalar.

    Reduction: **sum** over C·H·W, mean over the batch. No temperature. Zero where the generated map
    is the teacher's, which a masked map rarely allows, also at student = teacher.

    Args:
        generated: `MGDGenerator`'s output ``[B, C, H, W]``.
        f_t: Teacher map, same shape; nothing is detached here.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Yang et al.: Masked Generative Distillation, ECCV 2022, arXiv 2205.01529; official code
        yzd-v/MGD ``cls/mmcls/distillation/losses/mgd.py`` (masks channels, lambda 0.15, weight
        7e-5 on ImageNet) and ``seg/mmseg/distillation/losses/mgd.py`` (masks positions, lambda
        0.75, weight 2e-5). The N that divides the sum is the batch size, and what is masked is the
        aligned student map. The paper masks "random pixels"; the classification code masks
        channels, the default here. The published weights are for a sum over the map, so a weight
        found on one size of map does not carry over to another.
    """
    require_same_maps(generated, f_t)
    return F.mse_loss(generated, f_t, reduction="sum") / len(f_t)


class MGDGenerator(nn.Module):
    """Align -> mask -> 3x3 convolution -> ReLU -> 3x3 convolution.

    The student's map is aligned to the teacher's channels by a 1x1 convolution with bias, unless
    the channels are equal; the aligned map is masked.

    Args:
        student_channels: C_s of the student's map.
        teacher_channels: C_t of the teacher's map.

    Source:
        As `mgd`.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        same = student_channels == teacher_channels
        self.align = nn.Identity() if same else nn.Conv2d(student_channels, teacher_channels, 1)
        self.generate = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    @full_precision
    def forward(self, f_s: Tensor, keep: Tensor) -> Tensor:
        """Returns the generated map ``[B, C_t, H, W]``.

        Args:
            f_s: Student map ``[B, C_s, H, W]``.
            keep: 1 where the aligned map stays, 0 where it is masked: ``[B, C_t, 1, 1]`` for
                channels, ``[B, 1, H, W]`` for positions.
        """
        generated: Tensor = self.generate(self.align(f_s) * keep)
        return generated


class _Term(nn.Module):
    """Σ over stages of MGD under random masks."""

    def __init__(
        self,
        pairs: list[tuple[int, int]],
        shapes: list[tuple[MapShape, MapShape]],
        lambda_: float,
        mask: str,
    ) -> None:
        super().__init__()
        self.pairs = pairs
        self.generators = nn.ModuleList(MGDGenerator(s[0], t[0]) for s, t in shapes)
        self.masks = [(t[0], 1, 1) if mask == "channel" else (1, *t[1:]) for _, t in shapes]
        self.lambda_ = lambda_

    def forward(self, batch: Batch) -> Tensor:
        sizes = [channels * height * width for channels, height, width in self.masks]
        # One draw for all stages, because a second draw would give the same numbers.
        draws = torch.split(batch.uniform(sum(sizes)), sizes, dim=1)
        losses = []
        for generator, draw, mask, (s, t) in zip(
            self.generators, draws, self.masks, self.pairs, strict=True
        ):
            f_s = batch.student.stages[s]
            keep = (draw >= self.lambda_).to(f_s.dtype).view(-1, *mask)
            losses.append(mgd(generator(f_s, keep), batch.teacher.stages[t]))
        return total(losses)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    stages = str(hyperparameters["stages"])
    return _Term(
        stage_pairs(shapes, stages),
        compared_shapes(shapes, stages),
        float(hyperparameters["lambda"]),
        str(hyperparameters["mask"]),
    )


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_grids(shapes, str(hyperparameters["stages"]))


MGD = Method(
    name="mgd",
    title="Masked generative distillation",
    source="Yang et al., ECCV 2022, arXiv 2205.01529",
    reads=("stages", "adaptor"),
    hyperparameters=(
        stages_hyperparameter("last", "the stages whose teacher maps are generated, summed"),
        Hyperparameter(
            "lambda",
            0.15,
            "share of the student's map that is masked",
            low=0,
            high=1,
            search=(0, 1),
        ),
        Hyperparameter(
            "mask",
            "channel",
            "what is masked: whole channels (classification) or spatial positions (dense tasks)",
            choices=("channel", "spatial"),
        ),
    ),
    build=_build,
    needs=needs_stages,
    refuse=_refuse,
    weight=7e-5,
)
