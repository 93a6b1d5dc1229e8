from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from kdscale.data import Cifar10Spec, Cifar100Spec, fingerprint, load_data, load_test
from kdscale.errors import UserError

from .files import write_cifar

Spec = Cifar10Spec | Cifar100Spec
FOLDERS = {10: "cifar-10-batches-py", 100: "cifar-100-python"}
TEST_FILES = {10: "test_batch", 100: "test"}


def spec_of(classes: int, root: Path) -> Spec:
    return Cifar10Spec(root=root) if classes == 10 else Cifar100Spec(root=root)


def make(root: Path, classes: int) -> Path:
    folder = root / FOLDERS[classes]
    write_cifar(folder, classes, per_file=20 if classes == 10 else 300)
    return folder


def pack(root: Path, folder: Path) -> None:
    archive = root / f"{folder.name.replace('-batches-py', '-python')}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir(), reverse=True):  # in another order than it is read
            tar.add(path, f"{folder.name}/{path.name}")


@pytest.mark.parametrize("classes", [10, 100])
def test_splits_hold_every_image_of_the_files(tmp_path: Path, classes: int) -> None:
    folder = make(tmp_path, classes)
    data, test = load_data(spec_of(classes, tmp_path)), load_test(spec_of(classes, tmp_path))
    assert data.class_names == tuple(f"class {number}" for number in range(classes))
    assert (len(data.train) + len(data.validation)) == (100 if classes == 10 else 300)
    assert torch.bincount(data.validation.labels).tolist() == [1] * classes
    table = pickle.loads((folder / TEST_FILES[classes]).read_bytes())
    images = test.gather(torch.arange(len(test)))
    assert np.array_equal(images.numpy(), table[b"data"].reshape(-1, 3, 32, 32))
    assert test.labels.tolist() == [row % classes for row in range(len(test))]


@pytest.mark.parametrize("classes", [10, 100])
def test_archive_folder_and_its_parent_give_the_same(tmp_path: Path, classes: int) -> None:
    folder = make(tmp_path / "unpacked", classes)
    (tmp_path / "packed").mkdir()
    pack(tmp_path / "packed", folder)
    prints = set()
    for root in (tmp_path / "unpacked", folder, tmp_path / "packed"):
        data = load_data(spec_of(classes, root))
        test = load_test(spec_of(classes, root))
        prints.add(tuple(fingerprint(split) for split in (data.train, data.validation, test)))
    assert len(prints) == 1
    assert [path.name for path in (tmp_path / "packed").iterdir()] == [
        f"cifar-{classes}-python.tar.gz"
    ]


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("packed", [False, True])
def test_load_data_reads_no_test_file(tmp_path: Path, classes: int, packed: bool) -> None:
    folder = make(tmp_path / "files", classes)
    whole = load_data(spec_of(classes, tmp_path / "files"))
    (folder / TEST_FILES[classes]).write_bytes(b"poison")
    if packed:
        pack(tmp_path, folder)
    spec = spec_of(classes, tmp_path if packed else folder)
    assert fingerprint(load_data(spec).train) == fingerprint(whole.train)
    with pytest.raises(UserError, match=r"must be a file of the official archive"):
        load_test(spec)
    if not packed:
        (folder / TEST_FILES[classes]).unlink()
        load_data(spec)
        with pytest.raises(UserError, match=f"must hold {TEST_FILES[classes]}"):
            load_test(spec)


class _Attack:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(_Attack(), protocol=2),
        b"cos\nsystem\n(S'true'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}, protocol=2),
        b"",
    ],
)
def test_a_pickle_of_anything_else_is_refused(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path, 100)
    (folder / "train").write_bytes(content)
    with pytest.raises(UserError, match="must"):
        load_data(Cifar100Spec(root=tmp_path))
    assert capsys.readouterr().out == ""


def test_a_folder_without_the_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold cifar-10-python\.tar\.gz or cifar-10-batches"):
        load_data(Cifar10Spec(root=tmp_path))


def test_a_damaged_or_incomplete_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-100-python.tar.gz"
    archive.write_bytes(b"not an archive")
    with pytest.raises(UserError, match="must be the official archive"):
        load_data(Cifar100Spec(root=tmp_path))
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(UserError, match="must hold cifar-100-python/train, cifar-100-python/meta"):
        load_data(Cifar100Spec(root=tmp_path))
