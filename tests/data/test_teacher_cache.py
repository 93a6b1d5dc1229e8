from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdscale.data import Header, Part, TeacherCache, cache_key, entry_bytes, file_bytes

VIEWS = 18
LOGITS = Part("logits", (100,), (100, 1), "float32")


def cache(root: Path, key: str = "a", *, quota: int = 10**8, **how: Any) -> TeacherCache:
    made = TeacherCache(root, key, views=VIEWS, **({"dtype": "fp32", "quota_bytes": quota} | how))
    if made.header is None:
        made.create(Header((LOGITS,)))
    return made


def pairs(count: int, start: int = 0) -> tuple[Tensor, Tensor]:
    numbers = torch.arange(start, start + count)
    return numbers // VIEWS, numbers % VIEWS


def values(count: int) -> dict[str, Tensor]:
    return {"logits": torch.arange(count * 100.0).view(count, 100) / 7}


def test_what_is_stored_is_found_by_image_and_view(tmp_path: Path) -> None:
    first = cache(tmp_path)
    first.store(*pairs(40, 5), values(40))
    for reader in (first, cache(tmp_path)):
        found, outputs = reader.look_up(*pairs(50))
        assert found.tolist() == [5 <= number < 45 for number in range(50)]
        assert torch.equal(outputs["logits"][5:45], values(40)["logits"])
        assert reader.problem == ""
        assert reader.damaged == 0
        reader.close()
    assert not cache(tmp_path, "b").look_up(*pairs(50))[0].any()


def test_an_entry_in_anothers_place_is_damaged(tmp_path: Path) -> None:
    made = cache(tmp_path)
    made.store(*pairs(1), values(1))
    made.close()
    [file] = tmp_path.glob("a/*.block")
    size = entry_bytes((LOGITS,), "fp32") + 4
    content = file.read_bytes()
    file.write_bytes(content[size : 2 * size] + content[:size] + content[2 * size :])
    made = cache(tmp_path)
    assert not made.look_up(*pairs(2))[0].any()
    assert made.damaged == 1


def test_a_damaged_header_is_written_anew(tmp_path: Path) -> None:
    made = cache(tmp_path)
    made.store(*pairs(9), values(9))
    made.close()
    header = tmp_path / "a" / "header"
    header.write_bytes(header.read_bytes()[:-9])
    assert cache(tmp_path).look_up(*pairs(9))[0].all()


def test_fp16_keeps_what_it_can_say(tmp_path: Path) -> None:
    made = cache(tmp_path, dtype="fp16")
    rows = torch.full((1, 100), 1e6)
    rows[0, :2] = torch.tensor([-1e9, 0.1])
    made.store(*pairs(1), {"logits": rows})
    got = made.look_up(*pairs(1))[1]["logits"]
    assert got.dtype == torch.float32
    assert got[0, :3].tolist() == [-65504.0, pytest.approx(0.1, rel=2**-11), 65504.0]
    assert torch.equal(LOGITS.rounded(rows, "fp16"), got)


def aged(root: Path, *keys: str) -> None:
    """Fills keys with 2 MB each, the first used longest ago."""
    for age, key in enumerate(reversed(keys), start=1):
        made = cache(root, key)
        made.store(*pairs(5000), values(5000))
        made.close()
        os.utime(root / key / "in-use", (10**9 - age, 10**9 - age))


def keys_in(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("*/header"))


def test_the_longest_unused_key_goes_first(tmp_path: Path) -> None:
    aged(tmp_path, "old", "middle", "young")
    made = cache(tmp_path, "new", quota=6_000_000)
    assert keys_in(tmp_path) == ["middle", "new", "young"]
    for start in range(0, 5000, 50):
        made.store(*pairs(50, start), values(50))
    assert keys_in(tmp_path) == ["new", "young"]


def test_a_key_in_use_stays(tmp_path: Path) -> None:
    aged(tmp_path, "old", "young")
    user = cache(tmp_path, "old")
    os.utime(tmp_path / "old" / "in-use", (1, 1))
    cache(tmp_path, "new", quota=3_000_000)
    assert keys_in(tmp_path) == ["new", "old"]
    assert user.look_up(*pairs(5000))[0].all()
    assert (tmp_path / "old").is_dir()


def test_a_full_quota_stores_no_more_and_deletes_nothing_of_its_own(tmp_path: Path) -> None:
    made = cache(tmp_path, quota=1_000_000)
    for start in range(0, 5000, 50):
        made.store(*pairs(50, start), values(50))
    kept = int(made.look_up(*pairs(5000))[0].sum())
    assert 1000 < kept < 2500
    assert made.problem == ""
    made.close()
    again = cache(tmp_path, quota=1_000_000)
    assert int(again.look_up(*pairs(5000))[0].sum()) == kept


def test_a_lowered_quota_deletes_the_oldest_blocks(tmp_path: Path) -> None:
    wide = Header((Part("map", (2**20,), (2**20, 1), "float32"),))  # 4 MiB an entry

    def opened(quota: int) -> TeacherCache:
        made = TeacherCache(tmp_path, "wide", views=18, dtype="fp32", quota_bytes=quota)
        if made.header is None:
            made.create(wide)
        return made

    made = opened(10**9)
    images = torch.arange(4)
    made.store(images, torch.zeros(4, dtype=torch.int64), {"map": torch.ones(4, 2**20)})
    made.close()
    for age, block in enumerate(sorted(tmp_path.glob("wide/*.block"))):
        os.utime(block, (10**9 - age, 10**9 - age))
    made = opened(10_000_000)
    found, _ = made.look_up(images, torch.zeros(4, dtype=torch.int64))
    assert found.tolist() == [True, True, False, False]


def test_the_key_is_of_all_that_it_is_given() -> None:
    known = cache_key({"teacher": "a", "rows": 64})
    assert cache_key({"rows": 64, "teacher": "a"}) == known
    assert len({known, cache_key({"teacher": "a", "rows": 32}), cache_key({"teacher": "a"})}) == 3


def test_the_room_of_entries() -> None:
    assert file_bytes(400, 1000, 1000) == 404_000
    assert file_bytes(400, 10, 1000) == 10 * 2 * 4096
    assert file_bytes(4092, 1, 1000) == 4096
