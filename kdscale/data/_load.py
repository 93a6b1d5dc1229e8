"""From a data spec to its splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kdscale.data._cifar import read_cifar10, read_cifar10_test, read_cifar100, read_cifar100_test
from kdscale.data._fashion_mnist import read_fashion_mnist, read_fashion_mnist_test
from kdscale.data._icons100 import read_icons100, read_icons100_test
from kdscale.data._image_folder import read_image_folder, read_image_folder_test
from kdscale.data._select import balanced_subset, with_label_noise
from kdscale.data._spec import DataSpec
from kdscale.data._split import ArraySplit, Split
from kdscale.data._task import Source, TaskData


@dataclass(frozen=True)
class _Reader:
    """A data set's two ways in, each given its own spec; the first opens no test file."""

    source: Callable[[Any], Source]
    test: Callable[[Any], ArraySplit]


_READERS: Mapping[str, _Reader] = {
    "icons100": _Reader(read_icons100, read_icons100_test),
    "fashion_mnist": _Reader(read_fashion_mnist, read_fashion_mnist_test),
    "cifar10": _Reader(read_cifar10, read_cifar10_test),
    "cifar100": _Reader(read_cifar100, read_cifar100_test),
    "image_folder": _Reader(read_image_folder, read_image_folder_test),
}


def load_data(spec: DataSpec) -> TaskData:
    """Returns the training and validation split. Never opens a test file.

    Args:
        spec: The data set.

    Raises:
        UserError: If files are missing or damaged, or fewer images are there than asked for.
    """
    source = _READERS[spec.name].source(spec)
    train = source.train
    if spec.train_images is not None:
        train = balanced_subset(train, spec.train_images)
    if spec.label_noise:
        train = with_label_noise(train, spec.label_noise, len(source.class_names))
    return TaskData(
        train=train,
        validation=source.validation,
        class_names=source.class_names,
        mean=source.mean,
        std=source.std,
        image_size=spec.image_size,
        augmentation=spec.augmentation,
    )


def load_test(spec: DataSpec) -> Split:
    """Returns the test split, for the final evaluation alone: only kdscale.analysis may call it.

    Args:
        spec: The data set.

    Raises:
        UserError: If files are missing or damaged.
    """
    return _READERS[spec.name].test(spec)
