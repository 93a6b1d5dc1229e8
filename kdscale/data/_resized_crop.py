"""Random resized crops: a part of the image, drawn from a key, scaled to the image's own size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.data._hash import shift_right, splitmix64
from kdscale.data._spec import RandomResizedCropSpec

_TRIES = 10


def crop_boxes(keys: Tensor, spec: RandomResizedCropSpec, size: int) -> Tensor:
    """Returns top, left, height and width of a crop for each key, int64 ``[B, 4]``.

    Up to ten times area and shape are drawn until the crop fits into the image; else it is the
    largest one of an allowed shape in the centre. Each is a pure function of its key.

    Args:
        keys: int64 ``[B]``.
        spec: Bounds of area and shape.
        size: Height and width of the images in pixels.

    Source:
        Torchvision's RandomResizedCrop, after Szegedy et al., CVPR 2015, arXiv 1409.4842.
    """
    numbers = _uniform(keys, 2 * _TRIES + 2)
    areas, shapes, (tops, lefts) = numbers[:_TRIES], numbers[_TRIES:-2], numbers[-2:]
    low, high = spec.scale
    narrow, wide = spec.ratio
    area = size * size * (low + (high - low) * areas)
    shape = torch.exp(math.log(narrow) + math.log(wide / narrow) * shapes)
    widths, heights = torch.sqrt(area * shape).round(), torch.sqrt(area / shape).round()
    fits = (widths >= 1) & (widths <= size) & (heights >= 1) & (heights <= size)
    first = fits.long().argmax(dim=0, keepdim=True)
    found = fits.any(dim=0)
    width = torch.where(found, widths.gather(0, first)[0], round(size * min(wide, 1)))
    height = torch.where(found, heights.gather(0, first)[0], round(size / max(narrow, 1)))
    top = torch.where(found, (tops * (size - height + 1)).floor(), ((size - height) / 2).floor())
    left = torch.where(found, (lefts * (size - width + 1)).floor(), ((size - width) / 2).floor())
    return torch.stack([top, left, height, width], dim=1).long()


def resized(images: Tensor, boxes: Tensor) -> Tensor:
    """Returns crops scaled to the images' own size, bilinear, uint8 ``[B, 3, S, S]``.

    A crop is never larger than its image, so there is nothing to smooth. Pixels outside a crop
    have no part in it.

    Args:
        images: uint8 ``[B, 3, S, S]``.
        boxes: See `crop_boxes`.
    """
    size = images.shape[-1]
    corners, sides = boxes[:, :2, None].float(), boxes[:, 2:, None].float()
    places = (torch.arange(size, device=images.device) + 0.5) * sides / size - 0.5
    places = places.clamp(min=0).minimum(sides - 1) + corners
    rows, columns = (places * 2 / (size - 1) - 1).unbind(dim=1)
    grid = torch.stack(
        [columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], dim=3
    )
    crops = F.grid_sample(images.float(), grid, align_corners=True, padding_mode="border")
    return crops.round().clamp(0, 255).to(torch.uint8)


def _uniform(keys: Tensor, count: int) -> Tensor:
    """Returns numbers in [0, 1) for each key, float64 ``[count, B]``."""
    counter = splitmix64(torch.arange(count, device=keys.device))
    bits = splitmix64(splitmix64(keys) ^ counter[:, None])
    return shift_right(bits, 11).double() * 2.0**-53
