"""Fixed choices among labelled images, independent of a study's seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kdscale.data._order import random_permutation
from kdscale.data._split import ArraySplit, Integers
from kdscale.errors import UserError

# The keys of the choices, one for each purpose. They are part of what a data set is.
_CARVE = (0x6B647363616C65, 1)
_SUBSET = (0x6B647363616C65, 2)
_NOISE = (0x6B647363616C65, 3)
_WRONG = (0x6B647363616C65, 4)


def _places(labels: Integers, key: tuple[int, int]) -> Integers:
    """Returns each image's place in a random queue of its own class, from 0."""
    shuffled = random_permutation(len(labels), key)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    places = np.empty_like(labels)
    places[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return places


def _array(labels: Tensor) -> Integers:
    array: Integers = labels.numpy()
    return array


def carve(split: ArraySplit, fraction: float) -> tuple[ArraySplit, ArraySplit]:
    """Returns what is left for training, and a validation split cut from it.

    Of every class the same share is cut: at least one image, and never the last one.

    Args:
        split: All training images.
        fraction: Share of each class for validation, between 0 and 1.

    Raises:
        UserError: If no class has two images, so that nothing can be cut.
    """
    labels = _array(split.labels)
    counts = np.bincount(labels)
    wanted = np.minimum(np.maximum(np.rint(counts * fraction), 1), counts - 1)
    held = _places(labels, _CARVE) < wanted[labels]
    if not held.any():
        raise UserError(
            "a validation split needs a class with at least 2 training images, "
            f"but got {len(labels)} images of {np.count_nonzero(counts)} classes"
        )
    return split.subset(np.flatnonzero(~held)), split.subset(np.flatnonzero(held))


def balanced_subset(split: ArraySplit, count: int) -> ArraySplit:
    """Returns so many images of a split, equally many of each class as far as they go.

    A smaller subset is part of every larger one.

    Args:
        split: The images to choose from.
        count: How many to choose.

    Raises:
        UserError: If there are fewer.
    """
    if count > len(split):
        raise UserError(
            f"task.data.train_images must be at most the number of training images ({len(split)}), "
            f"but got {count}"
        )
    places = _places(_array(split.labels), _SUBSET)
    # Among equal places the order is random too, so that no class is always the one left out.
    queue = np.lexsort((random_permutation(len(split), _SUBSET), places))
    return split.subset(np.sort(queue[:count]))


def with_label_noise(split: ArraySplit, share: float, classes: int) -> ArraySplit:
    """Returns a split of the same images, some of them under a wrong label: symmetric noise.

    Of every class the same share of images is hit, and any other class is equally likely. A larger
    share keeps the wrong labels of a smaller one.

    Args:
        split: The images with their right labels.
        share: Share of each class, between 0 and 1.
        classes: Number of classes.

    Raises:
        UserError: If there is only one class, so that no label can be wrong.
    """
    if classes < 2:
        raise UserError("label_noise must have a second class to mistake one for, but got 1 class")
    labels = _array(split.labels)
    hit = _places(labels, _NOISE) < np.rint(np.bincount(labels) * share)[labels]
    draws = np.random.Philox(key=np.array(_WRONG, dtype=np.uint64)).random_raw(len(labels))
    others = 1 + (draws % np.uint64(classes - 1)).astype(np.int64)
    wrong = np.where(hit, (labels + others) % classes, labels)
    return replace(split, labels=torch.from_numpy(wrong))
