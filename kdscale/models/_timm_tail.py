"""What of a timm model runs after a stage, where that is a chain of modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def tail_names(
    model: Any, indices: Sequence[int], stages: Sequence[Tensor], features: Tensor
) -> list[list[str]]:
    """Returns for each stage the modules that lead from it to ``forward_features``, in order.

    They are found by trial: those that the model registers after the stage's module, one after the
    other, until their output is that of ``forward_features``, bitwise. So it is with CNNs whose
    forward pass is a chain of their children (ResNet, EfficientNet, ConvNeXt), but not with stages
    that are handed out in another form than the next one takes (Swin, ViT).

    Args:
        model: The timm model, in eval mode.
        indices: The stages' places in ``model.feature_info``.
        stages: Their features.
        features: What ``forward_features`` returns in the same pass.

    Returns:
        The modules' names by stage; an empty list if any stage lacks such a chain.
    """
    tails = []
    for index, stage in zip(indices, stages, strict=True):
        try:
            names = _chain(model, model.feature_info[index]["module"], stage, features)
        except Exception:  # a module that takes no single map, or a name that is no module
            return []
        if names is None:
            return []
        tails.append(names)
    return tails


def _chain(model: Any, after: str, stage: Tensor, features: Tensor) -> list[str] | None:
    names: list[str] = []
    later = _later(model, after)
    out = stage
    while not torch.equal(out, features):
        name = next(later, None)
        if name is None:
            return None
        names.append(name)
        out = model.get_submodule(name)(out)
    return names


def _later(model: Any, name: str) -> Iterator[str]:
    """Yields the modules that are registered after one: its siblings, then its parent's."""
    while name:
        parent, _, child = name.rpartition(".")
        siblings = [sibling for sibling, _ in model.get_submodule(parent).named_children()]
        for sibling in siblings[siblings.index(child) + 1 :]:
            yield f"{parent}.{sibling}" if parent else sibling
        name = parent
