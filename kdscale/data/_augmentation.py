"""Augmentation by numbered views: a view's number is drawn by a hash of (seed, epoch, index)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.data._hash import shift_right, splitmix64
from kdscale.data._resized_crop import crop_boxes, resized
from kdscale.data._spec import AugmentationSpec
from kdscale.errors import UserError

_KEYS = 2**63 - 1
_STORED = 0x53704ED
"""Joins the key of stored crops: they are the same under every seed."""


class Augmentation:
    """Random crop and mirroring as numbered views.

    After zero padding p, view ``code`` is ``(top * (2 p + 1) + left) * 2 + mirrored`` for a crop
    whose corner lies at (top, left) of the padded image; without mirroring the last factor is left
    out. Of random resized crops ``code`` is the key that crop and mirroring are drawn from, so that
    no two epochs share a view; or, of stored ones, the number of the image's crop.

    Args:
        spec: Which crops, and whether to mirror.
        image_size: Height and width of the images in pixels.

    Raises:
        UserError: If a crop could miss the image.
    """

    def __init__(self, spec: AugmentationSpec, image_size: int) -> None:
        if spec.crop_padding >= image_size:
            raise UserError(
                f"augmentation.crop_padding must be less than the image size ({image_size}), "
                f"but got {spec.crop_padding}"
            )
        self._padding = spec.crop_padding
        self._offsets = 2 * spec.crop_padding + 1
        self._mirrors = 2 if spec.flip else 1
        self._size = image_size
        self._resized_crop = spec.random_resized_crop

    @property
    def finite(self) -> bool:
        """Whether views come again, so that keeping what a teacher says to them serves."""
        return self._resized_crop is None or self._resized_crop.stored_crops is not None

    @property
    def view_count(self) -> int:
        """How many views an image has: 162 for padding 4 with mirroring."""
        if self._resized_crop is not None:
            return self._resized_crop.stored_crops or _KEYS
        return self._offsets**2 * self._mirrors

    def views(self, seed: int, epoch: int, indices: Tensor) -> Tensor:
        """Returns the view of each image in an epoch, int64 ``[B]``, 0 to view_count - 1.

        The view of an image depends on nothing but seed, epoch and the image's own index.

        Args:
            seed: The trial's seed.
            epoch: The epoch, from 1.
            indices: Indices into the training split, int64 ``[B]``.
        """
        state = torch.zeros((), dtype=torch.int64, device=indices.device)
        for part in (seed, epoch, indices):
            state = splitmix64(state ^ part)
        return shift_right(state, 1) % self.view_count

    def apply(self, images: Tensor, codes: Tensor, indices: Tensor | None = None) -> Tensor:
        """Returns the views of a batch, uint8 ``[B, 3, H, W]``.

        Args:
            images: uint8 ``[B, 3, H, W]``.
            codes: The view of each, int64 ``[B]``, on the images' device.
            indices: The images' numbers, int64 ``[B]``, on the images' device; stored crops, which
                each image has for itself, need them.
        """
        if self._resized_crop is not None:
            keys = codes
            if self._resized_crop.stored_crops is not None:
                if indices is None:
                    raise ValueError("stored crops need the images' numbers, but got none")
                keys = splitmix64(splitmix64(codes ^ _STORED) ^ indices)
            images = resized(images, crop_boxes(keys, self._resized_crop, self._size))
            return self._mirrored(images, shift_right(splitmix64(keys), 63))
        if self._padding:
            corners = codes // self._mirrors
            padded = F.pad(images, [self._padding] * 4)
            crops = padded.unfold(2, self._size, 1).unfold(3, self._size, 1)
            batch = torch.arange(len(images), device=images.device)
            images = crops[batch, :, corners // self._offsets, corners % self._offsets]
        return self._mirrored(images, codes % 2)

    def _mirrored(self, images: Tensor, ones: Tensor) -> Tensor:
        if self._mirrors == 2:
            images = torch.where((ones == 1)[:, None, None, None], images.flip(3), images)
        return images
