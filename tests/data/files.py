"""Tiny data sets in the formats of the real ones."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from PIL import Image

Opened = Callable[[], AbstractContextManager[list[str]]]
"""The fixture opened_files: a context manager whose value lists every file opened inside it."""


def write_fashion_mnist(folder: Path, part: str, count: int) -> None:
    """Writes images of value 1, 2, 3, ... with labels 0..9 in turn."""
    values = np.arange(1, count + 1, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None], (count, 28, 28))
    for name, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
        header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
        with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb") as file:
            file.write(header + array.astype(np.uint8).tobytes())


def write_cifar(folder: Path, classes: int, per_file: int) -> None:
    """Writes the unpacked archive's files: protocol 2, and bytes for keys, as official ones are."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    if classes == 10:
        files = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
        meta, labels = "batches.meta", b"labels"
    else:
        files, meta, labels = ["train", "test"], "meta", b"fine_labels"
    for name in files:
        data = rng.integers(256, size=(per_file, 3072), dtype=np.uint8)
        table = {b"data": data, labels: [row % classes for row in range(per_file)]}
        (folder / name).write_bytes(pickle.dumps(table, protocol=2))
    names = [f"class {number}".encode() for number in range(classes)]
    (folder / meta).write_bytes(pickle.dumps({labels[:-1] + b"_names": names}, protocol=2))


def write_image(path: Path, width: int, height: int, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)
