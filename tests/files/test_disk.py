"""What a full disk is called, whatever raised."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from kdscale.files import DISK_FULL, DiskFullError, disk_full, size_text, told_when_full


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_behind_other_errors(number: int, tmp_path: Path) -> None:
    def save() -> None:
        try:
            raise OSError(number, "full")
        except OSError:
            raise RuntimeError("unexpected pos 768 vs 662")  # noqa: B904  # as torch does

    with pytest.raises(DiskFullError) as told, told_when_full(tmp_path / "a" / "b", 2_900_000):
        save()
    assert str(told.value).startswith(f"{tmp_path}/a/b: {DISK_FULL}: 2.9 MB are needed, ")
    assert str(told.value).endswith("are free")
    again = pickle.loads(pickle.dumps(told.value))
    assert again.errno == errno.ENOSPC
    assert DISK_FULL in str(again)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError("no")])
def test_other_errors_stay_what_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as told, told_when_full(tmp_path, 1):
        raise error
    assert told.value is error
    assert not disk_full(error)
    assert not disk_full(None)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (2_900_000_000, "2.9 GB"), (10**16, "1e+04 TB")]
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size_text(count) == text
