"""Augmentation with few views: a view is a number, drawn by a hash of (seed, epoch, index)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.data._spec import AugmentationSpec
from kdscale.errors import UserError

# SplitMix64's constants as two's complement, since torch's arithmetic is int64. Steele, Lea and
# Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Returns x shifted as if it were unsigned; torch's own shift copies the sign."""
    return x.bitwise_right_shift(bits).bitwise_and(2 ** (64 - bits) - 1)


def splitmix64(x: Tensor) -> Tensor:
    """Returns SplitMix64's output for each state: 64 well mixed bits, int64, x's shape."""
    x = x + _GAMMA
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ _shift_right(x, 31)


class Augmentation:
    """Random crop after zero padding, and mirroring, as numbered views.

    View ``code`` is ``(top * (2 p + 1) + left) * 2 + mirrored`` for padding p and a crop whose
    corner lies at (top, left) of the padded image; without mirroring the last factor is left out.

    Args:
        spec: Padding and mirroring.
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

    @property
    def view_count(self) -> int:
        """How many views an image has: 162 for padding 4 with mirroring."""
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
        return _shift_right(state, 1) % self.view_count

    def apply(self, images: Tensor, codes: Tensor) -> Tensor:
        """Returns the views of a batch, uint8 ``[B, 3, H, W]``.

        Args:
            images: uint8 ``[B, 3, H, W]``.
            codes: The view of each, int64 ``[B]``, on the images' device.
        """
        if self._padding:
            corners = codes // self._mirrors
            padded = F.pad(images, [self._padding] * 4)
            crops = padded.unfold(2, self._size, 1).unfold(3, self._size, 1)
            batch = torch.arange(len(images), device=images.device)
            images = crops[batch, :, corners // self._offsets, corners % self._offsets]
        if self._mirrors == 2:
            mirrored = (codes % 2 == 1)[:, None, None, None]
            images = torch.where(mirrored, images.flip(3), images)
        return images
