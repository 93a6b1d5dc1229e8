from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sweeps import network, study_in

from kdscale.data import Augmentation, AugmentationSpec, epoch_order
from kdscale.errors import UserError
from kdscale.search import Study, fill_cache, single_trial, train_single
from kdscale.search._fill_cache import Filler, asked_pairs, prepared
from kdscale.training import Teaching, store_teacher

from .studies import make_study

IMAGES = 100


def study_with(folder: Path, *overrides: str) -> Study:
    """Returns the tiny study with two views an image, and a teacher of random weights."""
    weights = store_teacher(network(seed=7), study_in(folder).task.teacher, 100, folder)
    few = ("task.data.augmentation.crop_padding=0", f"task.teacher.weights={weights}")
    return study_in(folder, *few, "task.teacher.inference=folded", *overrides)


def must_not_teach(*_: object) -> None:
    raise AssertionError("the live teacher must not teach")


@given(
    images=st.integers(10, 30),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    epochs=st.integers(1, 4),
    batch_size=st.integers(1, 10),
    padding=st.integers(0, 1),
)
def test_pairs_are_those_that_a_sweep_asks_for_each_once_in_its_order(
    images: int, seeds: list[int], epochs: int, batch_size: int, padding: int
) -> None:
    augmentation = Augmentation(AugmentationSpec(crop_padding=padding, flip=True), 32)
    views = augmentation.view_count
    task = make_study().task
    recipe = task.recipe.model_copy(update={"batch_size": batch_size})
    study = make_study(
        task=task.model_copy(update={"recipe": recipe}),
        seeds=tuple(seeds),
        budget={"trials": 4 * len(seeds), "epochs": epochs},
    )
    asked: list[int] = []
    for epoch in range(1, epochs + 1):
        drawn: set[int] = set()
        for seed in seeds:
            order = epoch_order(images, seed, epoch)[: images // batch_size * batch_size]
            drawn |= set((order * views + augmentation.views(seed, epoch, order)).tolist())
        asked += sorted(drawn - set(asked))

    pairs = asked_pairs(study, augmentation, images, all_views=False).tolist()
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == set(asked)
    first = pairs.index(asked[0])  # by epoch: all of the first come before any of the second
    assert first < len(seeds) * images
    everything = asked_pairs(study, augmentation, images, all_views=True)
    assert everything[: len(pairs)].tolist() == pairs
    assert torch.equal(everything.sort().values, torch.arange(images * views))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_after_filling_nothing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_with(tmp_path, "task.data.train_images=600")  # slices for two workers
    told = list(fill_cache(study))
    end = told[-1]
    assert [part.done for part in told] == sorted(part.done for part in told)
    assert end.done == end.kept == end.pairs
    assert 600 < end.pairs <= 1200
    off = study_with(tmp_path, "task.data.train_images=600", "task.teacher.cache.enabled=false")
    storage = off.storage.model_copy(update={"folder": tmp_path / "off"})
    off = off.model_copy(update={"storage": storage})
    wanted = {
        seed: [part.rows for part in train_single(off, single_trial(off, seed))]
        for seed in study.seed_list
    }
    monkeypatch.setattr(Teaching, "live", must_not_teach)
    for seed, rows in wanted.items():
        assert [part.rows for part in train_single(study, single_trial(study, seed))] == rows


def test_what_is_there_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_with(tmp_path)
    task, pairs = prepared(study, all_views=False)
    assert Filler(task).fill(pairs[:77]) == 77
    assert Filler(task).fill(pairs) == len(pairs)
    task.teacher.unlink()
    assert Filler(task).fill(pairs) == len(pairs)  # without the teacher
    task, everything = prepared(study, all_views=True)
    assert Filler(task).fill(everything) == 2 * IMAGES
    monkeypatch.setattr(Teaching, "live", must_not_teach)
    assert Filler(task).fill(everything) == 2 * IMAGES


def test_what_does_not_fit_in_the_quota_is_left_out(tmp_path: Path) -> None:
    few = ("task.data.train_images=2000", "task.teacher.cache.quota=1MB")
    task, pairs = prepared(study_with(tmp_path, *few), all_views=True)
    kept = Filler(task).fill(pairs)
    assert 500 < kept < len(pairs) == 4000
    assert sum(f.lstat().st_blocks * 512 for f in task.folder.rglob("*.block")) < 1_000_000
    again = Filler(task)
    assert again.fill(pairs[:kept]) == kept
    assert again.fill(pairs[kept:]) == 0


def test_a_folder_is_told_from_others_of_its_path(tmp_path: Path) -> None:
    task, _ = prepared(study_with(tmp_path), all_views=False)
    here = Filler(task).folder_id()
    assert Filler(task).folder_id() == here
    task.folder.rename(tmp_path / "of another node")
    assert Filler(task).folder_id() != here
    shutil.rmtree(task.folder)
    task.folder.write_text("no folder")
    with pytest.raises(UserError, match=r"task\.teacher\.cache\.folder must be a folder that can"):
        Filler(task).folder_id()


def test_a_cache_that_is_off_or_too_small_for_an_epoch_is_not_filled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"to fill, but task\.teacher\.cache\.enabled is false"):
        next(fill_cache(study_with(tmp_path, "task.teacher.cache.enabled=false")))
    with pytest.raises(UserError, match="the outputs of one epoch do not fit in the quota"):
        next(fill_cache(study_with(tmp_path, "task.teacher.cache.quota=30kB")))
