"""Random resized crops: torchvision's crops, drawn from keys; stored ones are a few an image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop, functional

from kdscale.data import Augmentation, AugmentationSpec, RandomResizedCropSpec
from kdscale.data._hash import splitmix64
from kdscale.data._resized_crop import crop_boxes, resized

SIZE = 48
SPEC = RandomResizedCropSpec()


def images(count: int, size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def keys(count: int) -> Tensor:
    return splitmix64(torch.arange(count))


def augmentation(flip: bool = True, **given: Any) -> Augmentation:
    spec = AugmentationSpec.model_validate({"random_resized_crop": given, "flip": flip})
    return Augmentation(spec, SIZE)


@pytest.mark.parametrize("size", [32, 48, 65])
def test_a_crop_is_torchvisions(size: int) -> None:
    batch, boxes = images(64, size), crop_boxes(keys(64), SPEC, size)
    for image, box, crop in zip(batch, boxes, resized(batch, boxes), strict=True):
        kind = InterpolationMode.BILINEAR
        wanted = functional.resized_crop(image, *box.tolist(), [size, size], kind, antialias=True)
        assert (crop.int() - wanted.int()).abs().max() <= 1  # its integer arithmetic rounds twice


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (0.5, 2.0)), ((0.2, 0.2), (1.0, 1.0))],
)
def test_boxes_are_spread_as_torchvisions(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    spec = RandomResizedCropSpec(scale=scale, ratio=ratio)
    ours = crop_boxes(keys(3000), spec, SIZE)
    torch.manual_seed(0)
    image = images(1)[0]
    params = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(3000)]
    theirs = torch.tensor(params)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    for boxes in (ours, theirs):
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= SIZE).all()


@pytest.mark.parametrize("ratio", [(3.0, 4.0), (0.25, 0.25), (0.99, 1.01)])
def test_what_never_fits_is_the_largest_in_the_centre(ratio: tuple[float, float]) -> None:
    spec = RandomResizedCropSpec(scale=(1.0, 1.0), ratio=ratio)
    image = images(1)[0]
    for box in crop_boxes(keys(20), spec, SIZE).tolist():
        wanted = RandomResizedCrop.get_params(image, [1.0, 1.0], list(ratio))
        assert box == list(wanted)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10_000),
    rows=st.lists(st.integers(0, 7), min_size=1, max_size=8),
    stored=st.sampled_from([None, 1, 3]),
)
def test_a_view_depends_on_its_own_image_alone(
    seed: int, epoch: int, rows: list[int], stored: int | None
) -> None:
    crops = augmentation(stored_crops=stored)
    batch, indices = images(8), torch.tensor([5, 2**40, 3, 0, 9, 1, 77, 8])
    whole = crops.apply(batch, crops.views(seed, epoch, indices), indices)
    part = crops.views(seed, epoch, indices[rows])
    assert 0 <= part.min() <= part.max() < crops.view_count
    assert torch.equal(crops.apply(batch[rows], part, indices[rows]), whole[rows])


def test_views_have_no_end_or_are_as_many_as_are_stored() -> None:
    free, few = augmentation(), augmentation(stored_crops=4)
    assert (free.finite, few.finite, few.view_count) == (False, True, 4)
    indices = torch.arange(1000)
    codes = torch.cat([free.views(0, epoch, indices) for epoch in range(20)])
    assert len(codes.unique()) == len(codes)
    codes = torch.cat([few.views(0, epoch, indices) for epoch in range(20)])
    assert stats.chisquare(torch.bincount(codes, minlength=4)).pvalue > 1e-3


def test_each_image_has_stored_crops_of_its_own_the_same_under_every_seed() -> None:
    few = augmentation(stored_crops=2)
    same = images(1).expand(50, -1, -1, -1)
    indices = torch.arange(50)
    views = [few.apply(same, torch.full((50,), code), indices) for code in range(2)]
    assert len(torch.unique(torch.cat(views).flatten(1), dim=0)) == 100
    with pytest.raises(ValueError, match="need the images' numbers"):
        few.apply(same, torch.zeros(50, dtype=torch.int64))


def test_half_of_the_views_are_mirrored() -> None:
    batch = images(400)
    codes = keys(400)
    plain = augmentation(flip=False).apply(batch, codes)
    mirrored = (augmentation().apply(batch, codes) != plain).flatten(1).any(dim=1)
    assert stats.binomtest(int(mirrored.sum()), 400).pvalue > 1e-3
    assert torch.equal(augmentation().apply(batch, codes)[mirrored], plain[mirrored].flip(3))


def test_everything_happens_on_the_images_device() -> None:
    crops, indices = augmentation(stored_crops=3), torch.arange(4, device="meta")
    views = crops.apply(images(4).to("meta"), crops.views(0, 1, indices), indices)
    assert (views.device.type, views.dtype, views.shape) == ("meta", torch.uint8, (4, 3, 48, 48))
