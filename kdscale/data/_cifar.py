"""CIFAR-10 and CIFAR-100 from the official python archive, packed or unpacked.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdscale.data._select import carve
from kdscale.data._spec import Cifar10Spec, Cifar100Spec
from kdscale.data._split import ArraySplit
from kdscale.data._task import Channels, Source
from kdscale.errors import UserError


@dataclass(frozen=True)
class _Layout:
    """Where an archive keeps what, and the values that the literature normalises with."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: bytes
    names: bytes
    mean: Channels
    std: Channels


_CIFAR10 = _Layout(
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    test=("test_batch",),
    meta="batches.meta",
    labels=b"labels",
    names=b"label_names",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
_CIFAR100 = _Layout(
    archive="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    meta="meta",
    labels=b"fine_labels",
    names=b"fine_label_names",
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
)


def _latin1(text: str, encoding: str) -> bytes:
    """Returns the bytes that Python 3 wrote as text for protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"only latin1 is allowed, but got {encoding}")
    return text.encode("latin1")


# What a pickled array calls to make itself; NumPy keeps its module private.
_reconstruct: Any = np.empty(0).__reduce__()[0]

_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numbers, text, containers and NumPy arrays; a pickle that wants more is refused."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None


def _unpickle(content: bytes, where: str) -> dict[bytes, Any]:
    try:
        table = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{where} must be a file of the official archive, but: {error}") from error
    if not isinstance(table, dict):
        raise UserError(f"{where} must hold a dictionary, but got {type(table).__name__}")
    return table


def _read_files(root: Path, layout: _Layout, names: tuple[str, ...]) -> list[dict[bytes, Any]]:
    """Returns the named files' contents, from the unpacked folder if there is one."""
    root = root.expanduser()
    for folder in (root / layout.folder, root):
        if (folder / layout.meta).is_file():
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise UserError(f"{folder} must hold {', '.join(missing)}, which is not there")
            return [_unpickle((folder / name).read_bytes(), str(folder / name)) for name in names]
    archive = root / layout.archive
    if not archive.is_file():
        raise UserError(
            f"task.data.root must hold {layout.archive} or {layout.folder}, but got {root}"
        )
    contents = _read_archive(archive, [f"{layout.folder}/{name}" for name in names])
    return [_unpickle(content, f"{archive}:{name}") for name, content in contents.items()]


def _read_archive(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Returns the named members' contents, in the names' order; nothing is unpacked to disk."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:  # in the archive's order: seeking back would decompress it again
                if member.name in names and (file := tar.extractfile(member)) is not None:
                    contents[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} must be the official archive, but: {error}") from error
    if missing := [name for name in names if name not in contents]:
        raise UserError(f"{archive} must hold {', '.join(missing)}, which is not there")
    return {name: contents[name] for name in names}


def _split_of(tables: list[dict[bytes, Any]], layout: _Layout, root: Path) -> ArraySplit:
    try:
        rows = np.concatenate([table[b"data"] for table in tables])
        labels = np.concatenate([table[layout.labels] for table in tables])
        images = np.asarray(rows, dtype=np.uint8).reshape(len(labels), 3, 32, 32)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"the files in {root} must hold data of shape [N, 3072] and N "
            f"{layout.labels.decode()}, but: {error!r}"
        ) from error
    return ArraySplit.of(images, labels)


def _read(spec: Cifar10Spec | Cifar100Spec, layout: _Layout) -> Source:
    *tables, meta = _read_files(spec.root, layout, (*layout.train, layout.meta))
    train, validation = carve(_split_of(tables, layout, spec.root), spec.validation_fraction)
    names = meta.get(layout.names)
    if not names:
        raise UserError(f"{layout.meta} in {spec.root} must hold {layout.names.decode()}")
    class_names = tuple(name.decode() for name in names)
    return Source(train, validation, class_names, layout.mean, layout.std)


def _read_test(spec: Cifar10Spec | Cifar100Spec, layout: _Layout) -> ArraySplit:
    return _split_of(_read_files(spec.root, layout, layout.test), layout, spec.root)


def read_cifar10(spec: Cifar10Spec) -> Source:
    """Returns the training and validation split, both from the official training images."""
    return _read(spec, _CIFAR10)


def read_cifar10_test(spec: Cifar10Spec) -> ArraySplit:
    """Returns the official test images."""
    return _read_test(spec, _CIFAR10)


def read_cifar100(spec: Cifar100Spec) -> Source:
    """Returns the training and validation split, both from the official training images."""
    return _read(spec, _CIFAR100)


def read_cifar100_test(spec: Cifar100Spec) -> ArraySplit:
    """Returns the official test images."""
    return _read_test(spec, _CIFAR100)
