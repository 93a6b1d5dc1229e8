from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdscale.data import ImageFolderSpec, Split, fingerprint, load_data, load_test
from kdscale.data import _image_folder as image_folder
from kdscale.errors import UserError

from .files import Opened, write_image

COLOURS = {"cat": (200, 0, 0), "dog": (0, 200, 0), "eel": (0, 0, 200)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        for number in range(4):
            write_image(tmp_path / "train" / name / f"{number}.png", 20 + number, 16, colour)
        write_image(tmp_path / "test" / name / "0.JPG", 24, 40, colour)
    return tmp_path


def cache_files(root: Path) -> list[Path]:
    return sorted((root / ".kdscale").iterdir())


def middle_colours(split: Split) -> list[tuple[int, ...]]:
    images = split.gather(torch.arange(len(split)))
    return [tuple(colour) for colour in images[:, :, 4, 4].tolist()]


def test_images_are_scaled_cropped_and_labelled_by_their_folder(root: Path) -> None:
    spec = ImageFolderSpec(root=root, image_size=8, validation_fraction=0.25)
    data = load_data(spec)
    assert data.class_names == ("cat", "dog", "eel")
    assert (len(data.train), len(data.validation), data.image_size) == (9, 3, 8)
    for split in (data.train, data.validation):
        assert split.gather(torch.tensor([0])).shape == (1, 3, 8, 8)
        expected = [COLOURS[data.class_names[label]] for label in split.labels.tolist()]
        assert middle_colours(split) == expected
    test = load_test(spec)
    assert test.labels.tolist() == [0, 1, 2]
    assert test.gather(torch.arange(3)).shape == (3, 3, 8, 8)


def test_the_short_side_is_scaled_and_the_centre_cut_out(tmp_path: Path) -> None:
    # Three bands, 8 pixels each: the centre cut of the halved picture is the middle band's.
    bands = np.zeros((16, 48, 3), dtype=np.uint8)
    bands[:, 16:32] = 250
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(bands).save(tmp_path / "train" / "a" / f"{number}.png")
    data = load_data(ImageFolderSpec(root=tmp_path, image_size=8))
    image = data.train.gather(torch.tensor([0]))[0]
    assert (image[:, :, 1:-1] == 250).all()


def test_a_validation_folder_is_used_as_it_is(root: Path) -> None:
    write_image(root / "validation" / "dog" / "x.jpeg", 10, 10, COLOURS["dog"])
    data = load_data(ImageFolderSpec(root=root, image_size=8))
    assert (len(data.train), len(data.validation)) == (12, 1)
    assert data.validation.labels.tolist() == [1]


def test_load_data_opens_no_test_file(root: Path, opened_files: Opened) -> None:
    for path in (root / "test").glob("*/*"):
        path.write_bytes(b"poison")
    spec = ImageFolderSpec(root=root, image_size=8)
    with opened_files() as paths:
        data = load_data(spec)
    relative = [Path(path).relative_to(root).parts for path in paths if str(root) in path]
    assert {parts[0] for parts in relative} == {"train", ".kdscale"}
    with pytest.raises(UserError, match=r"test/cat/0.JPG must be an image"):
        load_test(spec)
    shutil.rmtree(root / "test")
    assert fingerprint(load_data(spec).train) == fingerprint(data.train)
    with pytest.raises(UserError, match=r"must hold .*test, which is not there"):
        load_test(spec)


def test_images_are_decoded_once_until_a_file_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ImageFolderSpec(root=root, image_size=8)
    first = load_data(spec)
    (cached,) = cache_files(root)
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "_decode", None)  # a second decoding would fail
        again = load_data(spec)
    assert fingerprint(first.train) == fingerprint(again.train)

    write_image(root / "train" / "cat" / "0.png", 20, 16, (1, 2, 3))
    os.utime(root / "train" / "cat" / "0.png", ns=(1, 1))
    changed = load_data(spec)
    assert len(cache_files(root)) == 2
    assert cached in cache_files(root)
    assert fingerprint(changed.train) != fingerprint(first.train)
    assert (1, 2, 3) in middle_colours(changed.train) + middle_colours(changed.validation)


def test_a_decoding_that_fails_leaves_nothing_behind(root: Path) -> None:
    (root / "train" / "dog" / "2.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"train/dog/2.png must be an image that can be read"):
        load_data(ImageFolderSpec(root=root, image_size=8))
    assert cache_files(root) == []


def test_a_folder_that_cannot_be_written_is_cached_for_the_user(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file in the cache folder's place stands for a read-only root: root may write anywhere.
    (root / ".kdscale").write_text("in the way")
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    load_data(ImageFolderSpec(root=root, image_size=8))
    assert len(list(cache.glob("kdscale/*/train-8px-*.npy"))) == 1


def test_a_class_that_is_not_in_train_is_refused(root: Path) -> None:
    write_image(root / "validation" / "cats" / "x.png", 10, 10, COLOURS["cat"])
    with pytest.raises(UserError, match=r'but got cats \(did you mean "cat"\?\)'):
        load_data(ImageFolderSpec(root=root, image_size=8))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    spec = ImageFolderSpec(root=tmp_path, image_size=8)
    with pytest.raises(UserError, match=r"must hold .*train, which is not there"):
        load_data(spec)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no image"):
        load_data(spec)
