"""Images in a folder for each class, decoded once into a file that is mapped into memory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kdscale.data._select import carve
from kdscale.data._spec import ImageFolderSpec
from kdscale.data._split import ArraySplit, Pixels
from kdscale.data._task import Source
from kdscale.errors import UserError, did_you_mean

_SUFFIXES = (".png", ".jpg", ".jpeg")
_DECODING = 1  # part of the cache's key: raise it when the same files give other pixels

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Listing:
    """The image files of a split, in a fixed order, and the class index of each."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise UserError(f"an image folder must hold {folder}, which is not there")
    return tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )


def _list(folder: Path, class_names: tuple[str, ...]) -> _Listing:
    files: list[Path] = []
    labels: list[int] = []
    for name in _class_names(folder):
        if name not in class_names:
            hint = did_you_mean(name, class_names)
            raise UserError(
                f"{folder} must hold only classes that are in train, but got {name}"
                + (f" ({hint})" if hint else "")
            )
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in _SUFFIXES)
        files += found
        labels += [class_names.index(name)] * len(found)
    if not files:
        raise UserError(f"{folder} must hold CLASS/*.png or CLASS/*.jpg, but holds no image")
    return _Listing(tuple(files), tuple(labels))


def _key(root: Path, listing: _Listing, image_size: int) -> str:
    """Returns a hash of everything that the decoded pixels depend on."""
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in listing.files]
    facts = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return hashlib.sha256(json.dumps([_DECODING, image_size, facts]).encode()).hexdigest()


def _decode(path: Path, size: int) -> Pixels:
    """Returns an image as RGB, short side scaled to the size, centre cut out: ``[3, H, W]``."""
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} must be an image that can be read, but: {error}") from error
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    picture = picture.crop((left, top, left + size, top + size))
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _cache_folder(root: Path) -> Path:
    """Returns a folder that can be written: beside the images, or the user's cache."""
    beside = root / ".kdscale"
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "kdscale" / hashlib.sha256(str(root).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _write(path: Path, files: tuple[Path, ...], size: int) -> None:
    """Decodes the files into one array file, which appears whole or not at all."""
    _log.info("decoding %d images once into %s", len(files), path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".decoding-") as folder:
        part = Path(folder) / path.name
        images = np.lib.format.open_memmap(
            part, mode="w+", dtype=np.uint8, shape=(len(files), 3, size, size)
        )

        def decode(row: int) -> None:
            images[row] = _decode(files[row], size)

        # Pillow decodes and scales outside the interpreter lock, so threads are enough.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode, range(len(files))):
                pass
        images.flush()
        os.replace(part, path)


def _read(root: Path, split: str, class_names: tuple[str, ...], image_size: int) -> ArraySplit:
    listing = _list(root / split, class_names)
    key = _key(root, listing, image_size)
    path = _cache_folder(root) / f"{split}-{image_size}px-{key[:16]}.npy"
    if not path.exists():
        _write(path, listing.files, image_size)
    return ArraySplit.of(np.load(path, mmap_mode="r"), listing.labels, source=key)


def read_image_folder(spec: ImageFolderSpec) -> Source:
    """Returns the training and validation split; validation is carved if it has no folder."""
    root = spec.root.expanduser().resolve()
    class_names = _class_names(root / "train")
    train = _read(root, "train", class_names, spec.image_size)
    if (root / "validation").is_dir():
        validation = _read(root, "validation", class_names, spec.image_size)
    else:
        train, validation = carve(train, spec.validation_fraction)
    return Source(train, validation, class_names, spec.mean, spec.std)


def read_image_folder_test(spec: ImageFolderSpec) -> ArraySplit:
    """Returns the test split."""
    root = spec.root.expanduser().resolve()
    return _read(root, "test", _class_names(root / "train"), spec.image_size)
