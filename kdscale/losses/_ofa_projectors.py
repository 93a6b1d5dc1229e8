"""OFA's projectors: what turns a student's stage features into logits while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._method import (
    Hyperparameter,
    PairShapes,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision
from kdscale.losses._stages import refuse_stages, stage_pairs, stages_hyperparameter
from kdscale.outputs import Need, Outputs, OutputShapes, stage
from kdscale.records import Value

TOKEN_GRID = 7
HEADS = 4

STAGES = stages_hyperparameter("all", "the student's stages that get a projector")
PROJECTOR = Hyperparameter(
    "projector",
    "auto",
    "convolution, tokens (attention), or auto: tokens if the student's stages have one shape",
    choices=("auto", "convolution", "tokens"),
)


class ConvolutionProjector(nn.Module):
    """Separable convolutions of stride 2, mean over positions, Linear: OFA's for CNN students.

    Channels double from block to block; the last block goes to the larger of the two networks'
    embeddings. At the last stage a 1x1 convolution stands for the blocks.

    Args:
        channels: C_l of the stage.
        later: How many stages follow this one: so many blocks.
        width: Input size of the Linear, max(D_s, D_t).
        classes: C of the logits.

    Source:
        As `ofa`; official code Hao840/OFAKD ``distillers/ofa.py``, ``distillers/utils.py``
        (``SepConv``). Convolutions start from He's normal distribution (fan out), the Linear from
        a normal one with standard deviation 0.02, truncated at ±2, and bias 0.
    """

    def __init__(self, channels: int, later: int, width: int, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [
            _separable(channels * 2**i, width if i == later - 1 else channels * 2 ** (i + 1))
            for i in range(later)
        ]
        self.blocks = nn.Sequential(*blocks or [nn.Conv2d(channels, width, 1)])
        self.classifier = nn.Linear(width, classes)
        _initialise(self)

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Returns logits ``[B, C]`` of stage features ``[B, C_l, H, W]``."""
        logits: Tensor = self.classifier(self.blocks(features).mean((2, 3)))
        return logits


class TokenProjector(nn.Module):
    """Patch merging, transformer blocks, mean over tokens, Linear: OFA's for ViTs and MLPs.

    Merging halves the grid as long as it keeps at least 7 tokens a side; the first merge goes to
    the student's embedding size. Stage maps carry no class token here, so the tokens are averaged:
    what the official code does for students without one (MLP-Mixer, ResMLP, Swin). For DeiT and
    ViT it passes the class token by the merging and reads that one instead.

    Args:
        channels: C_l of the stage.
        grid: H = W of the stage.
        later: How many stages follow this one: so many blocks, at least 1.
        width: The student's embedding size D_s, a multiple of 4 (the heads).
        classes: C of the logits.

    Source:
        As `ConvolutionProjector`; ``PatchMerging`` and timm 0.6.5's ``Block`` (no bias on queries,
        keys and values).
    """

    def __init__(self, channels: int, grid: int, later: int, width: int, classes: int) -> None:
        super().__init__()
        merges = merge_count(grid)
        # GELU follows the first merge and all but the last of the others.
        self.merges = nn.Sequential(
            *(
                _PatchMerging(channels if i == 0 else width, width, i == 0 or i < merges - 1)
                for i in range(merges)
            )
        )
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(max(later, 1))))
        self.classifier = nn.Linear(width, classes)
        _initialise(self)

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Returns logits ``[B, C]`` of stage features ``[B, C_l, H, W]``."""
        tokens = self.merges(features).flatten(2).transpose(1, 2)
        logits: Tensor = self.classifier(self.blocks(tokens).mean(1))
        return logits


class StageProjectors(nn.Module):
    """One projector for each chosen stage of the student.

    Stages are counted from the last: the official stage 4 is the last stage, whatever their number.

    Args:
        shapes: A pair that `refuse_projectors` has not refused.
        hyperparameters: Those with `STAGES` and `PROJECTOR` among them.
    """

    def __init__(self, shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> None:
        super().__init__()
        student, classes = shapes.student, shapes.teacher.classes
        self.numbers = stage_numbers(student, hyperparameters)
        width = max(student.embedding, shapes.teacher.embedding)
        self.projectors = nn.ModuleList()
        for number in self.numbers:
            channels, grid, _ = student.stages[number]
            later = len(student.stages) - 1 - number
            self.projectors.append(
                TokenProjector(channels, grid, later, student.embedding, classes)
                if _takes_tokens(student, hyperparameters)
                else ConvolutionProjector(channels, later, width, classes)
            )

    def forward(self, student: Outputs) -> list[Tensor]:
        """Returns the logits ``[B, C]`` of each chosen stage, in ascending order."""
        return [
            projector(student.stages[number])
            for number, projector in zip(self.numbers, self.projectors, strict=True)
        ]


def stage_numbers(student: OutputShapes, hyperparameters: Mapping[str, Value]) -> list[int]:
    """Returns the numbers of the chosen stages in `Outputs.stages`."""
    pairs = stage_pairs(PairShapes(student, student, 0), str(hyperparameters["stages"]))
    return [number for number, _ in pairs]


def stage_needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> frozenset[Need]:
    """Returns what the projectors read of the student."""
    return frozenset(stage(number) for number in stage_numbers(shapes.student, hyperparameters))


def refuse_projectors(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    """Returns why no projectors fit this pair, or an empty string."""
    student = shapes.student
    if reason := refuse_unequal_classes(shapes):
        return reason
    alone = replace(shapes, teacher=student)  # the teacher's stages do not matter
    if reason := refuse_stages(alone, str(hyperparameters["stages"])):
        return reason
    if _takes_tokens(student, hyperparameters):
        return _refuse_tokens(student, stage_numbers(student, hyperparameters))
    if shapes.batch_size < 2:
        return (
            "the projectors normalise over the batch, so the global batch must hold at least 2 "
            f"images, but got {shapes.batch_size}"
        )
    return ""


def merge_count(grid: int) -> int:
    """Returns how often a grid can be halved without going below 7 tokens a side."""
    return max((grid // TOKEN_GRID).bit_length() - 1, 0)


def _takes_tokens(student: OutputShapes, hyperparameters: Mapping[str, Value]) -> bool:
    if hyperparameters["projector"] == "auto":
        after_stem = student.stages[student.stem :]
        return len(after_stem) > 1 and len(set(after_stem)) == 1
    return hyperparameters["projector"] == "tokens"


def _refuse_tokens(student: OutputShapes, numbers: list[int]) -> str:
    width = student.embedding
    if width % HEADS:
        return f"the student's embedding size must be a multiple of {HEADS}, but got {width}"
    for number in numbers:
        channels, height, grid = student.stages[number]
        if height != grid:
            return f"token projectors need square stages, but got {height} x {grid}"
        merges = merge_count(grid)
        if grid % 2**merges:
            return (
                f"a stage of {grid} x {grid} tokens must be halved {merges} times to come near "
                f"{TOKEN_GRID} x {TOKEN_GRID}, so its side must be a multiple of {2**merges}"
            )
        if merges == 0 and channels != width:
            return (
                f"a stage of {grid} x {grid} tokens is not merged, so its channels must be the "
                f"student's embedding size {width}, but got {channels}"
            )
    return ""


def _separable(channels: int, width: int) -> nn.Module:
    """Two depthwise-pointwise convolutions with BatchNorm and ReLU, the first of stride 2."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class _PatchMerging(nn.Module):
    """Each 2 x 2 tokens become one: LayerNorm, Linear, GELU if ``activate``."""

    def __init__(self, channels: int, width: int, activate: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, width, bias=False)
        self.activate = activate

    def forward(self, features: Tensor) -> Tensor:
        tokens = F.pixel_unshuffle(features, 2).permute(0, 2, 3, 1)
        merged: Tensor = self.reduction(self.norm(tokens))
        return (F.gelu(merged) if self.activate else merged).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """A transformer block on tokens ``[B, L, D]``, normalised before each half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.queries_keys_values(self.attention_norm(tokens)).unflatten(2, (3, HEADS, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        tokens = tokens + self.project(attended.transpose(1, 2).flatten(2))
        hidden = F.gelu(self.expand(self.mlp_norm(tokens)))
        moved: Tensor = tokens + self.contract(hidden)
        return moved


def _initialise(projector: nn.Module) -> None:
    for module in projector.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
