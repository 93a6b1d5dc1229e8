"""Which stages of two networks are compared, and how maps of two sizes are brought to one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._method import Hyperparameter, PairShapes
from kdscale.outputs import OutputShapes

ALL = "all"


def stages_hyperparameter(default: str, help: str) -> Hyperparameter:
    """Returns the hyperparameter ``stages``: ``all``, or numbers from 1 like ``2 3``.

    Args:
        default: The stages that the papers compare.
        help: One line, without the spelling.
    """
    return Hyperparameter(
        "stages",
        default,
        f"{help}: all, or numbers from 1, the first after the stem; last is the last one",
        pattern=r"all|last|[1-9]\d*( [1-9]\d*)*",
        pattern_help='"all", "last" or ascending numbers from 1, as in "2 3"',
    )


def stage_count(shapes: PairShapes) -> int:
    """Returns n: how many stages after the stem the two networks have in common."""
    return min(_count(shapes.student), _count(shapes.teacher))


def stage_pairs(shapes: PairShapes, stages: str) -> list[tuple[int, int]]:
    """Returns the numbers (student's, teacher's) of the stages to compare, in `Outputs.stages`.

    Stage k of n is counted from the last one, so that the last stages meet where one network has
    more of them than the other.

    Args:
        shapes: The pair, which `refuse_stages` has not refused.
        stages: The value of the hyperparameter.
    """
    n = stage_count(shapes)
    skipped_s = len(shapes.student.stages) - n
    skipped_t = len(shapes.teacher.stages) - n
    return [(skipped_s + k - 1, skipped_t + k - 1) for k in _numbers(stages, n)]


def refuse_stages(shapes: PairShapes, stages: str) -> str:
    """Returns why the pair has not these stages, or an empty string."""
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        if not side.stages:
            return f"the {name} must put out stage features, but this model has none"
    n = stage_count(shapes)
    numbers = _numbers(stages, n)
    if numbers != sorted(set(numbers)):
        return f'stages must ascend, but got "{stages}"'
    if numbers[-1] > n:
        return f'stages must be at most {n}, the stages that the pair has in common, got "{stages}"'
    return ""


def _numbers(stages: str, count: int) -> list[int]:
    if stages == ALL:
        return list(range(1, count + 1))
    return [count] if stages == "last" else [int(number) for number in stages.split()]


def _count(shapes: OutputShapes) -> int:
    return len(shapes.stages) - shapes.stem


def match_height(f_s: Tensor, f_t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the two maps at one size: the higher one average-pooled to the lower one's height.

    The rule of RepDistiller; maps are taken for square there, as here.

    Args:
        f_s: Student map ``[B, C_s, H_s, W_s]``.
        f_t: Teacher map ``[B, C_t, H_t, W_t]``.
    """
    height_s, height_t = f_s.shape[2], f_t.shape[2]
    if height_s > height_t:
        return F.adaptive_avg_pool2d(f_s, (height_t, height_t)), f_t
    if height_t > height_s:
        return f_s, F.adaptive_avg_pool2d(f_t, (height_s, height_s))
    return f_s, f_t
