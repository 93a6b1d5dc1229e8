from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torchvision.transforms import functional

from kdscale.data import Augmentation, AugmentationSpec, normalise
from kdscale.data._hash import splitmix64
from kdscale.errors import UserError

AUGMENTATION = Augmentation(AugmentationSpec(), image_size=32)


def random_images(count: int, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def by_torchvision(image: Tensor, code: int, padding: int, flip: bool) -> Tensor:
    code, mirrored = divmod(code, 2) if flip else (code, 0)
    top, left = divmod(code, 2 * padding + 1)
    padded = functional.pad(image, [padding] * 4)
    crop = functional.crop(padded, top, left, *image.shape[1:])
    return functional.hflip(crop) if mirrored else crop


@pytest.mark.parametrize(
    ("padding", "flip", "count"), [(4, True, 162), (2, False, 25), (0, True, 2), (0, False, 1)]
)
def test_each_view_is_torchvisions_crop_and_flip_bit_for_bit(
    padding: int, flip: bool, count: int
) -> None:
    augmentation = Augmentation(AugmentationSpec(crop_padding=padding, flip=flip), image_size=12)
    assert augmentation.view_count == count
    images = random_images(count, size=12)
    views = augmentation.apply(images, torch.arange(count))
    for code in range(count):
        expected = by_torchvision(images[code], code, padding, flip)
        assert torch.equal(views[code], expected), f"view {code}"


def test_views_of_an_image_are_all_different() -> None:
    image = random_images(1).expand(AUGMENTATION.view_count, -1, -1, -1)
    views = AUGMENTATION.apply(image, torch.arange(AUGMENTATION.view_count))
    assert len(torch.unique(views.flatten(1), dim=0)) == AUGMENTATION.view_count


def test_grey_images_that_share_their_channels_are_augmented_alike() -> None:
    grey = random_images(8)[:, :1]
    codes = torch.arange(8) * 20
    shared = AUGMENTATION.apply(grey.expand(-1, 3, -1, -1), codes)
    assert torch.equal(shared, AUGMENTATION.apply(grey.repeat(1, 3, 1, 1), codes))


@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10_000),
    indices=st.lists(st.integers(0, 2**40), min_size=1, max_size=50),
    data=st.data(),
)
@settings(deadline=None)
def test_a_view_depends_on_its_own_index_alone(
    seed: int, epoch: int, indices: list[int], data: st.DataObject
) -> None:
    together = AUGMENTATION.views(seed, epoch, torch.tensor(indices))
    assert together.dtype == torch.int64
    assert 0 <= together.min() <= together.max() < AUGMENTATION.view_count
    place = data.draw(st.integers(0, len(indices) - 1))
    alone = AUGMENTATION.views(seed, epoch, torch.tensor([indices[place]]))
    assert alone.item() == together[place].item()


@pytest.mark.parametrize("varied", ["index", "epoch", "seed"])
def test_views_are_uniform_along_every_key(varied: str) -> None:
    n = 162 * 100
    if varied == "index":
        codes = AUGMENTATION.views(3, 7, torch.arange(n))
    elif varied == "epoch":
        codes = torch.cat([AUGMENTATION.views(3, e, torch.arange(162)) for e in range(100)])
    else:
        codes = torch.cat([AUGMENTATION.views(s, 7, torch.arange(162)) for s in range(100)])
    counts = torch.bincount(codes, minlength=162).numpy()
    assert stats.chisquare(counts).pvalue > 1e-4


def test_views_of_neighbouring_epochs_seeds_and_images_are_independent() -> None:
    base = AUGMENTATION.views(0, 1, torch.arange(16_200))
    others = {
        "epoch": AUGMENTATION.views(0, 2, torch.arange(16_200)),
        "seed": AUGMENTATION.views(1, 1, torch.arange(16_200)),
        "index": AUGMENTATION.views(0, 1, torch.arange(1, 16_201)),
        "seed and epoch swapped": AUGMENTATION.views(1, 0, torch.arange(16_200)),
    }
    for name, other in others.items():
        assert (base == other).double().mean() == pytest.approx(1 / 162, abs=0.003), name


def test_splitmix64_gives_the_published_numbers() -> None:
    # The first three outputs of the reference implementation seeded with 0.
    gamma = 0x9E3779B97F4A7C15
    states = torch.from_numpy(np.array([0, gamma, 2 * gamma % 2**64], dtype=np.uint64).view("i8"))
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(states).numpy().view(np.uint64).tolist() == expected


def test_everything_happens_on_the_images_device() -> None:
    # The meta device refuses to mix with tensors of the CPU, as a GPU would.
    images = random_images(4).to("meta")
    indices = torch.arange(4, device="meta")
    views = AUGMENTATION.apply(images, AUGMENTATION.views(0, 1, indices))
    pixels = normalise(views, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert views.device.type == pixels.device.type == "meta"
    assert pixels.shape == (4, 3, 32, 32)


def test_padding_that_could_crop_the_whole_image_away_is_refused() -> None:
    with pytest.raises(UserError, match=r"less than the image size \(32\), but got 32"):
        Augmentation(AugmentationSpec(crop_padding=32), image_size=32)


def test_normalise_is_torchvisions_to_float_and_normalise() -> None:
    images = random_images(4)
    mean, std = (0.49, 0.48, 0.44), (0.2, 0.25, 0.3)
    expected = functional.normalize(images.float() / 255, list(mean), list(std))
    result = normalise(images, mean, std)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)
