"""The strong view: a pure function of (seed, epoch, index), image by image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.data import Augmentation, AugmentationSpec, strong_views

AUGMENTATION = Augmentation(AugmentationSpec(), 32)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8))
INDICES = torch.tensor([4, 90, 7, 5, 31, 2])


def views(seed: int = 1, epoch: int = 1, chosen: list[int] | None = None) -> torch.Tensor:
    rows = list(range(6)) if chosen is None else chosen
    return strong_views(IMAGES[rows], AUGMENTATION, seed, epoch, INDICES[rows])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_an_image_gets_its_view_whatever_else_is_in_the_batch(chosen: list[int]) -> None:
    assert torch.equal(views(chosen=chosen), views()[chosen])


def test_views_differ_by_seed_and_epoch_and_from_the_image() -> None:
    first = views()
    assert first.dtype == torch.uint8
    assert first.shape == IMAGES.shape
    for other in (views(seed=2), views(epoch=2), IMAGES):
        assert all(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_global_random_state_stays() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    views()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_square_is_cut_out() -> None:
    white = torch.full((64, 3, 32, 32), 255, dtype=torch.uint8)
    plain = Augmentation(AugmentationSpec(crop_padding=0, flip=False), 32)
    grey = (strong_views(white, plain, 0, 1, torch.arange(64)) == 127).all(dim=1)
    assert grey.flatten(1).any(dim=1).all()
    assert grey.flatten(1).sum(dim=1).max() >= 16 * 16


@pytest.mark.parametrize("size", [32, 48])
def test_other_sizes(size: int) -> None:
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    augmentation = Augmentation(AugmentationSpec(), size)
    assert strong_views(images, augmentation, 0, 1, torch.arange(2)).shape == images.shape
