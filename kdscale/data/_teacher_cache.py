"""The teacher cache's storage: outputs by (image, view) on disk, for every run under one key.

It knows bytes, not models. What makes two outputs the same is the caller's to say, in the key.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kdscale.data._cache_blocks import MARK_BYTES, Blocks, room_bytes
from kdscale.data._cache_quota import make_room, take
from kdscale.data._cache_remote import RemoteKey
from kdscale.files import Remote

CacheType = Literal["fp32", "fp16"]

_FORMAT = 2
_HEADER = "header"
_MOST_UNCOUNTED_BYTES = 64 * 2**20
_FP16_MAX = 65504.0


def cache_key(identity: Mapping[str, Any]) -> str:
    """Returns the name of what a teacher cache holds: a digest of all that its bits depend on.

    Args:
        identity: Plain values by name.
    """
    text = json.dumps({"format": _FORMAT, **identity}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Part:
    """One kept output of a teacher.

    Attributes:
        name: The output's name.
        shape: Of one image.
        strides: Of the whole batch's tensor, as the teacher hands it out: losses may round
            otherwise over another memory format.
        type: Name of torch's type, such as ``float32``.
    """

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    type: str

    @classmethod
    def of(cls, name: str, batch: Tensor) -> Part:
        """Returns the description of a batch's output."""
        kind = str(batch.dtype).removeprefix("torch.")
        return cls(name, tuple(batch.shape[1:]), batch.stride(), kind)

    @property
    def dtype(self) -> torch.dtype:
        """Torch's type."""
        found: torch.dtype = getattr(torch, self.type)
        return found

    def stored(self, dtype: CacheType) -> torch.dtype:
        """Returns the type on disk."""
        whole = dtype == "fp32" or not self.dtype.is_floating_point
        return self.dtype if whole else torch.float16

    def bytes(self, dtype: CacheType) -> int:
        """Returns the bytes of one image's output on disk."""
        return math.prod(self.shape) * self.stored(dtype).itemsize

    @property
    def memory_order(self) -> tuple[int, ...]:
        """The batch's dimensions as they lie in memory, images first: what is on disk."""
        return (0, *sorted(range(1, len(self.strides)), key=lambda n: -self.strides[n]))

    def columns_of(self, batch: Tensor, dtype: CacheType) -> Tensor:
        """Returns the bytes of each image's output on disk, uint8 ``[B, bytes]``."""
        stored = self.rounded(batch, dtype).to("cpu", self.stored(dtype))
        return stored.permute(self.memory_order).flatten(1).contiguous().view(torch.uint8)

    def rounded(self, batch: Tensor, dtype: CacheType) -> Tensor:
        """Returns outputs as the cache would give them back, so that hits and misses agree."""
        if self.stored(dtype) == self.dtype:
            return batch
        return batch.clamp(-_FP16_MAX, _FP16_MAX).to(torch.float16).to(self.dtype)

    def batch_of(self, column: Tensor, dtype: CacheType, *, pinned: bool) -> Tensor:
        """Returns a batch in the teacher's own memory format, on the CPU.

        Args:
            column: Bytes of each image's output, uint8 ``[B, bytes]``, any distance apart.
            dtype: Type on disk.
            pinned: Whether a GPU can copy it while this process goes on.
        """
        stored = self.stored(dtype)
        if column.stride(0) % stored.itemsize or column.storage_offset() % stored.itemsize:
            column = column.contiguous()
        batch = torch.empty_strided(
            (len(column), *self.shape), self.strides, dtype=self.dtype, pin_memory=pinned
        )
        lying = batch.permute(self.memory_order)
        lying.copy_(column.view(stored).view_as(lying))
        return batch


@dataclass(frozen=True)
class Header:
    """What is true of all entries of one key.

    Attributes:
        parts: The kept outputs; empty if this teacher's outputs must not be cached.
        static: What is the same for all images, by name.
    """

    parts: tuple[Part, ...]
    static: Mapping[str, Tensor] = field(default_factory=dict)


def entry_bytes(parts: Sequence[Part], dtype: CacheType) -> int:
    """Returns the bytes of one (image, view) on disk, without its mark."""
    return sum(part.bytes(dtype) for part in parts)


def file_bytes(data_bytes: int, entries: int, of: int) -> int:
    """Returns the most bytes that some of a cache's entries take on the disk.

    Args:
        data_bytes: Of one entry, see `entry_bytes`.
        entries: How many entries are there, anywhere.
        of: How many there are in the full cache.
    """
    return min((data_bytes + MARK_BYTES) * of, entries * room_bytes(data_bytes))


class TeacherCache:
    """Outputs of one teacher under one key, shared by all processes that know the folder.

    Nothing here raises for what a disk can do: what cannot be read is absent, what cannot be
    written is not kept, and `problem` says why.

    Args:
        root: The folder of all keys.
        key: What the entries are, see `cache_key`.
        views: Views of an image.
        dtype: Type on disk.
        quota_bytes: Of all keys together.
        remote: A remote folder of all keys, from which blocks that are not here are fetched, and
            to which those that are new are carried; None for this folder alone.

    Attributes:
        problem: The first thing that went wrong; empty if nothing has.
    """

    def __init__(
        self,
        root: Path,
        key: str,
        *,
        views: int,
        dtype: CacheType,
        quota_bytes: int,
        remote: Remote | None = None,
    ) -> None:
        self.problem = ""
        self._remote = None if remote is None else RemoteKey(remote, key)
        self.header: Header | None = None
        self._root = root
        self._key = key
        self._views = views
        self._dtype: CacheType = dtype
        self._quota = quota_bytes
        self._blocks: Blocks | None = None
        self._lock: int | None = None
        self._room = 0
        self._asked: set[int] = set()
        """Blocks that have been looked for on the remote folder."""
        self._full = False
        try:
            self._lock = take(root / key)
            self._room = self._more_room(0)
            self._read_header()
        except OSError as error:
            self._failed("opened", error)

    @property
    def damaged(self) -> int:
        """How many entries and files were found damaged, and taken for absent."""
        return 0 if self._blocks is None else self._blocks.damaged

    def create(self, header: Header) -> None:
        """Writes the header of a new key; another process may do the same at the same time."""
        self.header = header
        content = {
            "parts": [asdict(part) for part in header.parts],
            "static": dict(header.static),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getvalue()
        marked = zlib.crc32(data).to_bytes(4, "little") + data
        try:
            self._write_header(marked)
            self._start()
        except OSError as error:
            self._failed("written", error)
        if self._remote is not None:
            self._remote.save_header(marked)

    def look_up(
        self, indices: Tensor, codes: Tensor, *, pinned: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns which rows of a batch are here, bool ``[B]``, and the outputs by name.

        Rows that are not here hold anything.

        Args:
            indices: Numbers of the images, int64 ``[B]`` on the CPU.
            codes: The view of each, int64 ``[B]`` on the CPU.
            pinned: Whether a GPU can copy the outputs while this process goes on.
        """
        if self.header is None or self._blocks is None:
            return torch.zeros(len(indices), dtype=torch.bool), {}
        size = entry_bytes(self.header.parts, self._dtype)
        rows = np.empty((len(indices), MARK_BYTES + size), dtype=np.uint8)
        found = np.zeros(len(indices), dtype=np.bool_)
        self._fetch(indices)
        for row, (image, view) in enumerate(zip(indices.tolist(), codes.tolist(), strict=True)):
            try:
                found[row] = self._blocks.read(image, view, rows[row])
            except OSError as error:
                self._failed("read", error)
        if not found.any():
            return torch.from_numpy(found), {}
        table = torch.from_numpy(rows)
        outputs, start = {}, MARK_BYTES
        for part in self.header.parts:
            end = start + part.bytes(self._dtype)
            column = table[:, start:end]
            outputs[part.name] = part.batch_of(column, self._dtype, pinned=pinned)
            start = end
        return torch.from_numpy(found), outputs

    def store(self, indices: Tensor, codes: Tensor, outputs: Mapping[str, Tensor]) -> int:
        """Keeps outputs, as far as quota and disk allow, and returns of how many images.

        Args:
            indices: Numbers of the images, int64 ``[B]`` on the CPU.
            codes: The view of each, int64 ``[B]`` on the CPU.
            outputs: Every part of the header, ``[B, ...]``.
        """
        if self.header is None or self._blocks is None or self._full:
            return 0
        columns = [part.columns_of(outputs[part.name], self._dtype) for part in self.header.parts]
        data = torch.cat(columns, dim=1).numpy()
        kept = 0
        try:
            needed = len(indices) * self._blocks.entry_room_bytes
            if self._room < needed:
                self._blocks.forget_deleted()
                self._room = self._more_room(needed)
                self._full = self._room < needed
            if self._full:
                return 0
            self._room -= needed
            for row, (image, view) in enumerate(zip(indices.tolist(), codes.tolist(), strict=True)):
                self._blocks.write(image, view, data[row])
                kept = row + 1
        except OSError as error:
            self._full = True
            self._failed("written", error)
        if self._remote is not None:
            for image in indices[:kept].tolist():
                self._remote.count(self._blocks.number_of(image), 1)
        return kept

    def end_epoch(self) -> None:
        """Begins to carry what is new to the remote folder, if there is one."""
        if self._blocks is not None and self._remote is not None:
            self._remote.end_epoch(self._blocks)

    def close(self) -> None:
        """Closes its files; others may evict the key from now on."""
        if self._blocks is not None:
            if self._remote is not None:
                self._remote.close(self._blocks)
            self._blocks.close()
        if self._lock is not None:
            os.close(self._lock)
        self._blocks = self._lock = None

    def _more_room(self, needed: int) -> int:
        wanted = max(needed, min(_MOST_UNCOUNTED_BYTES, self._quota // 32))
        return min(wanted, make_room(self._root, self._key, self._quota, wanted))

    def _fetch(self, indices: Tensor) -> None:
        """Fetches the blocks of some images that are not here, as far as there is room."""
        blocks = self._blocks
        if blocks is None or self._remote is None or self._remote.away:
            return
        for number in sorted({blocks.number_of(image) for image in indices.tolist()}):
            if number in self._asked:
                continue
            self._asked.add(number)
            try:
                pack = None if blocks.has(number) else self._remote.pack(number)
                needed = 0 if pack is None else blocks.entries_of(pack) * blocks.entry_room_bytes
                if pack is not None and needed <= self._more_room(needed):
                    self._room = 0  # counted anew with the next entry
                    blocks.merge(number, pack)
            except OSError as error:
                self._failed("fetched", error)

    def _write_header(self, content: bytes) -> None:
        path = self._root / self._key / _HEADER
        draft = path.with_name(f".{_HEADER}.{os.uname().nodename}.{os.getpid()}")
        try:
            draft.write_bytes(content)
            os.replace(draft, path)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise

    def _read_header(self) -> None:
        try:
            content = (self._root / self._key / _HEADER).read_bytes()
        except FileNotFoundError:
            found = None if self._remote is None else self._remote.header()
            if found is None:
                return
            content = found
            self._write_header(content)
        mark, data = content[:4], content[4:]
        if zlib.crc32(data).to_bytes(4, "little") != mark:
            return  # damaged: it is written anew
        saved = torch.load(io.BytesIO(data), weights_only=True)
        parts = tuple(
            Part(p["name"], tuple(p["shape"]), tuple(p["strides"]), p["type"])
            for p in saved["parts"]
        )
        self.header = Header(parts, saved["static"])
        self._start()

    def _start(self) -> None:
        assert self.header is not None
        if self.header.parts and self._lock is not None:
            size = entry_bytes(self.header.parts, self._dtype)
            self._blocks = Blocks(self._root / self._key, self._views, size)

    def _failed(self, what: str, error: OSError) -> None:
        self.problem = self.problem or f"{self._root}: could not be {what}: {error}"
