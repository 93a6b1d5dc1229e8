"""The second, strong view of an image, for methods that teach two views at once."""

from __future__ import annotations

import torch
from torch import Tensor

from kdscale.data._augmentation import Augmentation
from kdscale.data._hash import splitmix64

_SECOND_VIEW = 0x2ECD1E
"""Joins the key, so that the crop is not that of the first view."""

_OPERATIONS = 2
_MAGNITUDE = 10


def strong_views(
    images: Tensor, augmentation: Augmentation, seed: int, epoch: int, indices: Tensor
) -> Tensor:
    """Returns the strong view of each image, uint8 ``[B, 3, H, W]`` on the CPU.

    It is a crop of its own, then torchvision's RandAugment with two operations of magnitude 10,
    then a square of half the image's side filled with grey at a random place (cutout; it may lie
    partly outside). A pure function of (seed, epoch, index), one image at a time.

    Args:
        images: uint8 ``[B, 3, H, W]`` on the CPU.
        augmentation: The task's crops and mirroring.
        seed: The trial's seed.
        epoch: The epoch, from 1.
        indices: Indices into the training split, int64 ``[B]``.

    Source:
        Cubuk et al., RandAugment, CVPRW 2020, arXiv 1909.13719; DeVries and Taylor, Cutout,
        arXiv 1708.04552. MLLD (Jin et al., CVPR 2023) takes RandAugment(2, 10); each author's
        list of operations differs a little, torchvision's is used for all.
    """
    from torchvision.transforms.v2 import InterpolationMode, RandAugment  # takes a second

    codes = augmentation.views(seed ^ _SECOND_VIEW, epoch, indices)
    crops = augmentation.apply(images, codes, indices)
    randaugment = RandAugment(_OPERATIONS, _MAGNITUDE, interpolation=InterpolationMode.BILINEAR)
    state = torch.zeros((), dtype=torch.int64)
    for part in (seed, epoch, indices):
        state = splitmix64(state ^ part ^ _SECOND_VIEW)
    views = []
    with torch.random.fork_rng(devices=[]):
        for image, key in zip(crops, state.tolist(), strict=True):
            # Not torch.manual_seed: that would reseed accelerators too.
            torch.default_generator.manual_seed(key & (2**63 - 1))
            views.append(_cut_out(randaugment(image)))
    return torch.stack(views)


def _cut_out(image: Tensor) -> Tensor:
    size = image.shape[-1]
    half = size // 4
    top, left = torch.randint(size, (2,)).tolist()
    image = image.clone()
    image[:, max(top - half, 0) : top + half, max(left - half, 0) : left + half] = 127
    return image
