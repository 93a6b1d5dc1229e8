"""Labelled images of one split, in memory or on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pixels = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

_CHUNK = 1024


class Split(Protocol):
    """Labelled images of one split."""

    @property
    def labels(self) -> Tensor:
        """Class indices, int64 ``[N]``."""

    def __len__(self) -> int:
        """Returns N."""

    def gather(self, indices: Tensor) -> Tensor:
        """Returns the images at the indices, uint8 ``[B, 3, H, W]``.

        Args:
            indices: int64 ``[B]`` on the CPU.
        """


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split that picks rows of an array, which may be a file mapped into memory.

    Attributes:
        images: uint8 ``[M, C, H, W]``, C = 3, or 1 for grey images.
        labels: Class indices, int64 ``[N]``.
        rows: Where the split's images lie in ``images``, int64 ``[N]``.
        source: A hash of the files that the images come from; empty if only the pixels can tell.
    """

    images: Pixels
    labels: Tensor
    rows: Integers = field(repr=False)
    source: str = ""

    @classmethod
    def of(cls, images: Pixels, labels: npt.ArrayLike, source: str = "") -> ArraySplit:
        """Returns the split of all rows of an array."""
        labels_of_rows = torch.from_numpy(np.array(labels, dtype=np.int64))
        return cls(images, labels_of_rows, np.arange(len(images), dtype=np.int64), source)

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, indices: Tensor) -> Tensor:
        """Returns the images at the indices, uint8 ``[B, 3, H, W]``."""
        picked = torch.from_numpy(np.asarray(self.images[self.rows[indices.numpy()]]))
        return picked.expand(-1, 3, -1, -1)

    def subset(self, indices: Integers) -> ArraySplit:
        """Returns the split of some of its images, without copying them."""
        return ArraySplit(
            self.images, self.labels[torch.from_numpy(indices)], self.rows[indices], self.source
        )


def fingerprint(split: Split) -> str:
    """Returns the SHA-256 of a split's images and labels, in hexadecimal.

    For images on disk it covers the names, sizes and times of their files instead of the pixels.
    """
    digest = hashlib.sha256(split.labels.numpy().tobytes())
    if isinstance(split, ArraySplit) and split.source:
        digest.update(split.source.encode())
        digest.update(split.rows.tobytes())
        return digest.hexdigest()
    for start in range(0, len(split), _CHUNK):
        indices = torch.arange(start, min(start + _CHUNK, len(split)))
        digest.update(split.gather(indices).numpy().tobytes())
    return digest.hexdigest()
