"""A teacher cache that several nodes fill, each in a folder of its own, by way of a remote one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdscale.data import Header, Part, TeacherCache
from kdscale.data import _cache_blocks as blocks
from kdscale.files import Remote

KEY, VIEWS, IMAGES = "key", 3, 40


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1000)  # so there are several


def outputs(indices: Tensor, codes: Tensor) -> dict[str, Tensor]:
    return {"logits": (indices * VIEWS + codes).double()[:, None] + torch.arange(9) / 16}


def opened(folder: Path, remote: Remote, quota: int = 10**9) -> TeacherCache:
    cache = TeacherCache(folder, KEY, views=VIEWS, dtype="fp32", quota_bytes=quota, remote=remote)
    if cache.header is None:
        some = torch.arange(2)
        cache.create(Header((Part.of("logits", outputs(some, some)["logits"]),)))
    return cache


def fill(cache: TeacherCache, view: int, images: Tensor) -> None:
    codes = torch.full_like(images, view)
    assert cache.store(images, codes, outputs(images, codes)) == len(images)


def found(cache: TeacherCache, view: int) -> int:
    """Returns how many images are there, after holding that they are right."""
    images = torch.arange(IMAGES)
    codes = torch.full_like(images, view)
    here, parts = cache.look_up(images, codes)
    if here.any():
        assert torch.equal(parts["logits"][here], outputs(images, codes)["logits"][here])
    return int(here.sum())


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote((tmp_path / "remote").as_uri())


def test_what_one_node_fills_another_finds(remote: Remote, tmp_path: Path) -> None:
    first = opened(tmp_path / "a", remote)
    fill(first, 0, torch.arange(IMAGES))
    first.close()
    second = TeacherCache(
        tmp_path / "b", KEY, views=VIEWS, dtype="fp32", quota_bytes=10**9, remote=remote
    )
    assert second.header is not None
    assert found(second, 0) == IMAGES
    assert found(second, 1) == 0
    assert (second.problem, second.damaged) == ("", 0)
    fill(second, 1, torch.arange(IMAGES // 2))
    second.close()
    third = opened(tmp_path / "c", remote)
    assert (found(third, 0), found(third, 1)) == (IMAGES, IMAGES // 2)
    third.close()


def test_two_nodes_at_once_lose_nothing_of_each_other(remote: Remote, tmp_path: Path) -> None:
    first, second = opened(tmp_path / "a", remote), opened(tmp_path / "b", remote)
    for cache, view in ((first, 0), (second, 1)):
        assert found(cache, view) == 0
        fill(cache, view, torch.arange(IMAGES))
    first.end_epoch()
    first.close()
    second.close()
    again = opened(tmp_path / "a", remote)  # it has the blocks, so it fetches none
    assert (found(again, 0), found(again, 1)) == (IMAGES, 0)
    again.close()
    third = opened(tmp_path / "c", remote)
    assert (found(third, 0), found(third, 1)) == (IMAGES, IMAGES)
    third.close()


def test_damage_reads_as_absent(remote: Remote, tmp_path: Path) -> None:
    first = opened(tmp_path / "a", remote)
    fill(first, 0, torch.arange(IMAGES))
    first.close()
    packs = sorted(name for name in remote.sizes() if name.endswith(".pack"))
    assert len(packs) > 2
    cut, flipped = packs[:2]
    remote.put((remote.get(cut) or b"")[:-1], cut)
    damaged = bytearray(remote.get(flipped) or b"")
    damaged[-1] ^= 1
    remote.put(bytes(damaged), flipped)
    second = opened(tmp_path / "b", remote)
    assert IMAGES // 2 < found(second, 0) < IMAGES
    assert second.damaged == 1
    second.close()


def test_a_full_quota_takes_no_packs(remote: Remote, tmp_path: Path) -> None:
    first = opened(tmp_path / "a", remote)
    fill(first, 0, torch.arange(IMAGES))
    first.close()
    second = opened(tmp_path / "b", remote, quota=100)
    assert found(second, 0) == 0
    second.close()


def test_a_remote_that_is_away_is_told_and_changes_nothing(tmp_path: Path) -> None:
    cache = opened(tmp_path / "a", Remote("s3://bucket/a?unknown=1&region=us-east-1"))
    assert "could not be" in cache.problem
    fill(cache, 0, torch.arange(IMAGES))
    assert found(cache, 0) == IMAGES
    with pytest.warns(RuntimeWarning, match="is away"):
        cache.close()
