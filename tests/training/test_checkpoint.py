from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from kdscale.errors import UserError
from kdscale.training import Group, train_cohort
from kdscale.training._checkpoint import load_checkpoint, save_atomically

from .tasks import assert_same, cohort_of, data, members

CONTENT: dict[str, Any] = {
    "epoch": 3,
    "name": "kd",
    "history": [{"epoch": 1, "loss": 0.1 + 0.2}],
    "state": {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)},
}


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.pt"
    save_atomically(CONTENT, path)
    assert_same(load_checkpoint(path), CONTENT)
    assert os.listdir(path.parent) == ["a.pt"]


@pytest.mark.parametrize("step", ["torch.save", "os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_keeps_the_old_file(
    step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    save_atomically(CONTENT, path)

    def fail(*args: Any) -> None:
        if step == "torch.save":
            args[1].write(b"half a file")
        raise error

    monkeypatch.setattr(f"kdscale.training._checkpoint.{step}", fail)
    with pytest.raises(type(error)):
        save_atomically(CONTENT | {"epoch": 4}, path)
    monkeypatch.undo()
    assert_same(load_checkpoint(path), CONTENT)
    assert os.listdir(tmp_path) == ["a.pt"]


def test_a_cohort_begins_by_deleting_what_killed_ones_left_of_its_trials(tmp_path: Path) -> None:
    kept = (".checkpoint.pt.uploaded", ".student.pt.uploaded", "notes.txt")
    left = (".checkpoint.pt.4321", ".student.pt.4321", ".checkpoint.pt.gpu-7.4321")
    trained, other = (tmp_path / name for name in ("undistilled", "other"))
    for folder in (trained, other):
        folder.mkdir()
        for name in (*kept, *left):
            (folder / name).touch()
    cohort = cohort_of(members(tmp_path, "undistilled"))
    next(train_cohort(cohort, data(), None, Group()))
    assert sorted(os.listdir(trained)) == sorted(kept)
    assert sorted(os.listdir(other)) == sorted((*kept, *left))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.pt: the checkpoint must exist, but there is no such"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_atomically(CONTENT, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a\.pt: "):
        load_checkpoint(path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_text("epoch: 3\n")
    with pytest.raises(UserError, match=r"a\.pt: "):
        load_checkpoint(path)
    with pytest.raises(UserError, match="the checkpoint must be readable, but: "):
        load_checkpoint(tmp_path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="must hold a dictionary, but got list"):
        load_checkpoint(path)


class Code:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    path, folder = tmp_path / "a.pt", tmp_path / "made"
    content = {"state": Code(folder)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match="must be a checkpoint of tensors and plain values"):
        load_checkpoint(path)
    assert not folder.exists()
