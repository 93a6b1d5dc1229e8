from __future__ import annotations

import numpy as np
import torch

from kdscale.data import ArraySplit, fingerprint


def test_gather_returns_the_images_of_the_splits_own_rows() -> None:
    images = np.arange(10 * 3 * 2 * 2, dtype=np.uint8).reshape(10, 3, 2, 2)
    split = ArraySplit.of(images, range(10)).subset(np.array([7, 3, 5]))
    picked = split.gather(torch.tensor([2, 0, 0]))
    assert picked.dtype == torch.uint8
    assert np.array_equal(picked.numpy(), images[[5, 7, 7]])
    assert split.labels.tolist() == [7, 3, 5]
    assert split.labels.dtype == torch.int64


def test_grey_images_get_three_channels() -> None:
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    picked = ArraySplit.of(images, [0, 1]).gather(torch.tensor([1]))
    assert np.array_equal(picked.numpy(), np.repeat(images[1:], 3, axis=1))


def test_fingerprint_tells_images_labels_and_order_apart() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(4, 3, 1, 1)
    split = ArraySplit.of(images, [0, 1, 0, 1])
    brighter = images.copy()
    brighter[3, 0] += 1
    different = [
        split,
        ArraySplit.of(brighter, [0, 1, 0, 1]),
        ArraySplit.of(images, [0, 1, 0, 0]),
        split.subset(np.array([2, 1, 0, 3])),
        split.subset(np.array([0, 1])),
    ]
    assert len({fingerprint(other) for other in different}) == len(different)
    assert fingerprint(split) == fingerprint(ArraySplit.of(images.copy(), [0, 1, 0, 1]))


def test_fingerprint_of_images_on_disk_reads_none_of_them() -> None:
    images = np.zeros((2, 3, 1, 1), dtype=np.uint8)
    prints = {fingerprint(ArraySplit.of(images, [0, 1], source)) for source in ("", "a", "b")}
    assert len(prints) == 3
    other_pixels = ArraySplit.of(images + 1, [0, 1], "a")
    assert fingerprint(other_pixels) in prints
