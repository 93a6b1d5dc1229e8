"""What of a timm model runs after a stage, where that is a chain of modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Step = tuple[str, int | None]
"""A module's name, and the number of the stage that it puts out; None if that is no stage."""


def tail_steps(
    model: Any, indices: Sequence[int], stages: Sequence[Tensor], features: Tensor
) -> list[Step]:
    """Returns the modules from the first stage's to ``forward_features``, in order.

    They are found by trial: those that the model registers after the first stage's module, one
    after the other, as long as each stage's module puts out that stage, until the output is that
    of ``forward_features``, bitwise. So it is with CNNs whose forward pass is a chain of their
    children (ResNet, EfficientNet, ConvNeXt), but not with stages that are handed out in another
    form than the next one takes (Swin, ViT).

    Args:
        model: The timm model, in eval mode.
        indices: The stages' places in ``model.feature_info``.
        stages: Their features.
        features: What ``forward_features`` returns in the same pass.

    Returns:
        The steps, the first one that of stage 0; an empty list if there is no such chain.
    """
    try:
        names: list[str] = [model.feature_info[index]["module"] for index in indices]
        return _chain(model, names, stages, features)
    except Exception:  # a module that takes no single map, or a name that is no module
        return []


def _chain(
    model: Any, names: Sequence[str], stages: Sequence[Tensor], features: Tensor
) -> list[Step]:
    steps: list[Step] = [(names[0], 0)]
    out, found = stages[0], 1
    later = _later(model, names)
    while found < len(stages) or not torch.equal(out, features):
        name = next(later, None)
        if name is None:
            return []
        out = model.get_submodule(name)(out)
        # By name too: the residual branches of a new network may be zero, and stages alike.
        is_stage = found < len(stages) and name == names[found]
        if is_stage and not torch.equal(out, stages[found]):
            return []
        steps.append((name, found if is_stage else None))
        found += is_stage
    return steps


def _later(model: Any, names: Sequence[str]) -> Iterator[str]:
    """Yields the modules registered after the first stage's: its siblings, then its parent's."""
    name = names[0]
    while name:
        parent, _, child = name.rpartition(".")
        siblings = [sibling for sibling, _ in model.get_submodule(parent).named_children()]
        for sibling in siblings[siblings.index(child) + 1 :]:
            yield from _opened(model, f"{parent}.{sibling}" if parent else sibling, names)
        name = parent


def _opened(model: Any, name: str, names: Sequence[str]) -> Iterator[str]:
    """Yields a module's name, or those of its children in its place if a stage ends inside it."""
    if not any(stage.startswith(f"{name}.") for stage in names):
        yield name
        return
    for child, _ in model.get_submodule(name).named_children():
        yield from _opened(model, f"{name}.{child}", names)
