"""Checkpoints: one file a trial, written atomically, read without executing code."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from kdscale.errors import UserError
from kdscale.files import told_when_full
from kdscale.training._memory import out_of_memory


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Writes tensors and plain values so that a crash leaves the old file or the new, never half.

    Args:
        content: Tensors, numbers, strings, and lists and dictionaries of these.
        path: The file; its folder is made when missing.

    Raises:
        DiskFullError: If it does not fit; the old file is as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with told_when_full(path.parent, _bytes(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                torch.save(_alone(content), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def delete_drafts(folder: Path) -> None:
    """Deletes what processes that were killed while they saved have left in a trial's folder.

    Nobody may be saving there: a trial has one worker at a time.
    """
    for pattern in (".checkpoint.pt.*", ".student.pt.*"):
        for path in folder.glob(pattern):
            if path.suffix != ".uploaded":  # the mark of a file that has a copy elsewhere
                with suppress(OSError):
                    path.unlink()


def _bytes(content: Any) -> int:
    """Returns the bytes of all tensors in content."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        return sum(map(_bytes, content.values()))
    return sum(map(_bytes, content)) if isinstance(content, list | tuple) else 0


def _alone(content: Any) -> Any:
    """Returns content whose tensors share no memory with what is not saved, as slices do."""
    if isinstance(content, Mapping):
        return {key: _alone(value) for key, value in content.items()}
    if isinstance(content, torch.Tensor) and content.untyped_storage().nbytes() > content.nbytes:
        return content.clone()
    return content


def epoch_of(path: Path) -> int:
    """Returns the epoch of a trial's checkpoint, without reading its tensors.

    Raises:
        UserError: If it cannot be read.
    """
    epoch: int = load_checkpoint(path, mapped=True)["epoch"]
    return epoch


def load_checkpoint(
    path: Path,
    device: torch.device | str = "cpu",
    *,
    content: bytes | None = None,
    mapped: bool = False,
) -> dict[str, Any]:
    """Returns what `save_atomically` wrote; nothing in the file is executed.

    Args:
        path: The file.
        device: Where its tensors go.
        content: What is in the file, where another process has read it.
        mapped: Whether tensors are read only as they are used.

    Raises:
        UserError: If the file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        source = path if content is None else io.BytesIO(content)
        loaded = torch.load(source, map_location=device, weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise UserError(f"{path}: the checkpoint must exist, but there is no such file") from None
    except Exception as error:
        if out_of_memory(error):
            raise
        if isinstance(error, RuntimeError | EOFError | OSError | ValueError | zipfile.BadZipFile):
            raise UserError(f"{path}: the checkpoint must be readable, but: {error}") from error
        # What is left are pickle's own errors, of which there are many kinds.
        # Their text advises to load the file with its code: not to be passed on.
        raise UserError(
            f"{path}: must be a checkpoint of tensors and plain values, but is none "
            f"({type(error).__name__})"
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(
            f"{path}: a checkpoint must hold a dictionary, but got {type(loaded).__name__}"
        )
    return loaded
