from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from kdscale.data import FashionMnistSpec, fingerprint, load_data, load_test
from kdscale.errors import UserError

from .files import Opened, write_fashion_mnist


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_fashion_mnist(tmp_path, "train", 60)
    write_fashion_mnist(tmp_path, "t10k", 20)
    return tmp_path


def test_splits_have_the_files_images_padded_to_32(root: Path) -> None:
    spec = FashionMnistSpec(root=root, validation_fraction=0.5)
    data, test = load_data(spec), load_test(spec)
    assert (len(data.train), len(data.validation), len(test)) == (30, 30, 20)
    assert torch.bincount(data.validation.labels).tolist() == [3] * 10
    assert (data.num_classes, data.image_size) == (10, 32)
    values = []
    for split in (data.train, data.validation):
        images = split.gather(torch.arange(30))
        assert images.shape == (30, 3, 32, 32)
        padded = np.pad(images[:, :, 2:-2, 2:-2], ((0, 0), (0, 0), (2, 2), (2, 2)))
        assert np.array_equal(images, padded)
        values += images[:, 0, 16, 16].tolist()
        assert ((images[:, 0, 16, 16] - 1) % 10).tolist() == split.labels.tolist()
    assert sorted(values) == list(range(1, 61))


def test_load_data_opens_no_test_file(root: Path, opened_files: Opened) -> None:
    for path in root.glob("t10k-*"):
        path.write_bytes(b"poison")
    with opened_files() as paths:
        load_data(FashionMnistSpec(root=root))
    assert {Path(p).name for p in paths if str(root) in p} == {
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    }


def test_the_validation_split_is_always_the_same(root: Path) -> None:
    first, second = (
        load_data(FashionMnistSpec(root=root, train_images=count)) for count in (None, 20)
    )
    assert fingerprint(first.validation) == fingerprint(second.validation)
    assert len(second.train) == 20


def test_missing_files_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        load_data(FashionMnistSpec(root=tmp_path))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"not gzip", "must be a gzip file"),
        (gzip.compress(b"\0\0\x0d\x03" + bytes(12)), "must be an idx file of bytes"),
        (gzip.compress(b"\0\0\x08\x03" + bytes([0, 0, 0, 2] * 3)), "must hold 8 bytes"),
        (gzip.compress(bytes(5000))[:-12], "must be a gzip file"),
    ],
    ids=["not gzip", "no idx file", "short", "cut off"],
)
def test_damaged_files_are_named(root: Path, content: bytes, rule: str) -> None:
    (root / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=f"train-images-idx3-ubyte.gz {rule}"):
        load_data(FashionMnistSpec(root=root))


def test_a_label_for_each_image(root: Path) -> None:
    labels = (root / "t10k-labels-idx1-ubyte.gz").read_bytes()
    (root / "train-labels-idx1-ubyte.gz").write_bytes(labels)
    with pytest.raises(UserError, match="60 images and 20 labels"):
        load_data(FashionMnistSpec(root=root))
