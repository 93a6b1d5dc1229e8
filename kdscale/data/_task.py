"""A task's data: training and validation split, and what networks need to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kdscale.data._spec import AugmentationSpec
from kdscale.data._split import ArraySplit, Split

Channels = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Source:
    """What a data set's reader returns; the test split is not part of it.

    Attributes:
        train: Training images.
        validation: Validation images.
        class_names: A name for each class index.
        mean: Mean of the red, green and blue values, in 0..1.
        std: Their standard deviation.
    """

    train: ArraySplit
    validation: ArraySplit
    class_names: tuple[str, ...]
    mean: Channels
    std: Channels


@dataclass(frozen=True, eq=False)
class TaskData:
    """The data that a search may see. There is no way from here to the test split.

    Attributes:
        train: Training images.
        validation: Validation images.
        class_names: A name for each class index.
        mean: Mean of the red, green and blue values, in 0..1.
        std: Their standard deviation.
        image_size: Height and width in pixels.
        augmentation: The random views of training images.
    """

    train: Split
    validation: Split
    class_names: tuple[str, ...]
    mean: Channels
    std: Channels
    image_size: int
    augmentation: AugmentationSpec

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def normalise(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """Returns ``(images / 255 - mean) / std``, float32 ``[B, 3, H, W]``.

    Args:
        images: uint8 ``[B, 3, H, W]``.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel.
    """
    factors = _factors(tuple(mean), tuple(std), images.device)
    return torch.mul(images, factors[0].view(3, 1, 1)).add_(factors[1].view(3, 1, 1))


@lru_cache(maxsize=64)
def _factors(mean: Channels, std: Channels, device: torch.device) -> Tensor:
    """Returns scale and shift ``[2, 3]``, kept: to send them anew makes the host wait for a GPU."""
    scale = [1 / (255 * deviation) for deviation in std]
    shift = [-centre / deviation for centre, deviation in zip(mean, std, strict=True)]
    with torch.inference_mode(mode=False):  # whoever asks first
        return torch.tensor([scale, shift], dtype=torch.float32, device=device)
