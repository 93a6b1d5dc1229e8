from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from kdscale.data import Icons100Spec, Split, fingerprint, load_data, load_test
from kdscale.data import _icons100 as icons100

from .files import Opened

SPEC = Icons100Spec()


def pixels(split: Split) -> torch.Tensor:
    return split.gather(torch.arange(len(split)))


def test_counts_are_those_of_the_docstring() -> None:
    data = load_data(SPEC)
    assert data.num_classes == 100
    assert (data.image_size, data.augmentation.crop_padding) == (32, 4)
    for name, split in (
        ("train", data.train),
        ("validation", data.validation),
        ("test", load_test(SPEC)),
    ):
        per_class = torch.bincount(split.labels, minlength=100)
        row = next(line for line in icons100.__doc__.splitlines() if line.startswith(f"{name} "))
        assert row.split()[1:4] == [
            f"{len(split):,}",
            str(int((per_class > 0).sum())),
            f"{per_class.min()}-{per_class.max()}",
        ]


def test_mean_and_std_are_those_of_the_training_split() -> None:
    data = load_data(SPEC)
    values = pixels(data.train).double() / 255
    assert values.mean(dim=(0, 2, 3)).tolist() == pytest.approx(data.mean, abs=1e-4)
    assert values.std(dim=(0, 2, 3)).tolist() == pytest.approx(data.std, abs=1e-4)


def test_no_held_out_icon_is_nearly_equal_to_one_of_its_class_in_an_earlier_split() -> None:
    data = load_data(SPEC)
    train, validation, test = (
        (split.labels, torch.nn.functional.normalize(255.0 - pixels(split).flatten(1).float()))
        for split in (data.train, data.validation, load_test(SPEC))
    )
    for (labels, ink), (earlier_labels, earlier_ink) in (
        (validation, train),
        (test, train),
        (test, validation),
    ):
        cosine = ink @ earlier_ink.T
        same_class = labels[:, None] == earlier_labels[None]
        assert cosine[same_class].max() <= 0.95 + 1e-6


def test_load_data_opens_no_test_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened_files: Opened
) -> None:
    for split in ("train", "validation"):
        shutil.copy(str(icons100.ASSETS.joinpath(f"icons100-{split}.npz")), tmp_path)
    (tmp_path / "icons100-test.npz").write_bytes(b"poison")
    monkeypatch.setattr(icons100, "ASSETS", tmp_path)
    with opened_files() as paths:
        load_data(SPEC)
    names = {Path(path).name for path in paths if str(tmp_path) in path}
    assert names == {"icons100-train.npz", "icons100-validation.npz"}


def test_train_images_gives_a_balanced_subset_and_leaves_validation_alone() -> None:
    whole, part = load_data(SPEC), load_data(Icons100Spec(train_images=1_000))
    assert torch.bincount(part.train.labels).tolist() == [10] * 100
    assert fingerprint(part.validation) == fingerprint(whole.validation)


def test_notice_names_every_licence_and_counts_every_icon() -> None:
    notice = icons100.ASSETS.joinpath("NOTICE").read_text("utf-8")
    lines = notice.splitlines()
    counts = [int(line.split()[-2]) for line in lines if line.endswith(" icons") and ": " in line]
    data = load_data(SPEC)
    assert sum(counts) == len(data.train) + len(data.validation) + len(load_test(SPEC))
    assert f"the {len(counts)} icon sets" in notice
    allowed = ("MIT", "Apache-2.0", "CC0-1.0", "ISC", "BSD-3-Clause", "Unlicense")
    authors = [line for line in lines if line.startswith("    by ")]
    assert len(authors) == len(counts)
    assert all(line.endswith(allowed) for line in authors)
