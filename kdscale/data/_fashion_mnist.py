"""Fashion-MNIST from its idx.gz files, as Debian's package dataset-fashion-mnist installs them.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms", arXiv 1708.07747.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from kdscale.data._select import carve
from kdscale.data._spec import FashionMnistSpec
from kdscale.data._split import ArraySplit, Pixels
from kdscale.data._task import Source
from kdscale.errors import UserError

_CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
_PADDING = 2  # 28x28 to 32x32
# Of the padded training images, as measured.
_MEAN = 0.2190
_STD = 0.3318


def _read_idx(path: Path, dimensions: int) -> Pixels:
    """Returns the array of an idx file of bytes: 4 bytes of type, 4 a dimension, then the data."""
    try:
        with gzip.open(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise UserError(
            f"Fashion-MNIST needs the file {path}, which is not there: "
            "apt-get install dataset-fashion-mnist, or set task.data.root"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} must be a gzip file of Fashion-MNIST, but: {error}") from error
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
        raise UserError(
            f"{path} must be an idx file of bytes in {dimensions} dimensions, "
            f"but begins with {content[:4].hex(' ')}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path} must hold {math.prod(shape)} bytes of data, but got {len(content) - start}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _read(root: Path, part: str) -> ArraySplit:
    folder = root.expanduser()
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3)
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)
    if len(images) != len(labels):
        raise UserError(
            f"{folder} must hold a label for each image of {part}, "
            f"but got {len(images)} images and {len(labels)} labels"
        )
    edges = ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING))
    return ArraySplit.of(np.pad(images, edges)[:, None], labels)


def read_fashion_mnist(spec: FashionMnistSpec) -> Source:
    """Returns the training and validation split, both from the official training images."""
    train, validation = carve(_read(spec.root, "train"), spec.validation_fraction)
    return Source(train, validation, _CLASS_NAMES, (_MEAN,) * 3, (_STD,) * 3)


def read_fashion_mnist_test(spec: FashionMnistSpec) -> ArraySplit:
    """Returns the official test images."""
    return _read(spec.root, "t10k")
