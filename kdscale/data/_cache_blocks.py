"""Block files of the teacher cache: fixed places, each with its own checksum, many writers.

A file is read with `pread` and not mapped into memory: the page cache shares its pages between
processes in both ways, but a mapped file that somebody cuts, or that a full disk cannot hold,
kills its reader with SIGBUS, where a read is only short and a write only fails.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_BLOCK_BYTES = 64 * 2**20
_MOST_OPEN = 256
MARK_BYTES = 4
_PAGE_BYTES = 4096


def room_bytes(entry_bytes: int) -> int:
    """Returns the most bytes that one entry takes on the disk."""
    size = entry_bytes + MARK_BYTES
    pages = -(-size // _PAGE_BYTES) + (size % _PAGE_BYTES > 0)  # it may lie across two
    return pages * _PAGE_BYTES


class Blocks:
    """Entries of one size, one for each (image, view), spread over sparse files.

    An entry is a mark and its data. The mark is a checksum of data and place, never 0, and is
    written after the data: until then the place reads as absent. What does not fit its mark
    (a torn write, a damaged disk) is absent too, and counted.

    Args:
        folder: Holds the files.
        views: Views of an image.
        entry_bytes: Bytes of an entry's data.

    Attributes:
        damaged: How many entries and files did not hold what their marks or sizes say.
        entry_room_bytes: The most bytes that an entry takes on the disk.
    """

    def __init__(self, folder: Path, views: int, entry_bytes: int) -> None:
        self.damaged = 0
        self.entry_room_bytes = room_bytes(entry_bytes)
        self._folder = folder
        self._views = views
        self._stride = entry_bytes + MARK_BYTES
        self._images = max(1, _BLOCK_BYTES // (views * self._stride))
        self._file_bytes = self._images * views * self._stride
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, image: int, view: int, into: Bytes) -> bool:
        """Fills ``into`` with an entry's data, and returns whether it is there and sound.

        Args:
            image: Number of the image.
            view: Number of the view.
            into: uint8 ``[MARK_BYTES + entry_bytes]``: the mark, then the data.
        """
        number, offset = self._place(image, view)
        file = self._file(number, create=False)
        if file is None:
            return False
        if os.preadv(file, [into.data], offset) < self._stride:
            return False
        mark = int.from_bytes(into[:MARK_BYTES].tobytes(), "little")
        if mark == 0:
            return False
        if mark != _mark(image, view, into[MARK_BYTES:]):
            self.damaged += 1
            return False
        return True

    def write(self, image: int, view: int, data: Bytes) -> None:
        """Writes an entry.

        Args:
            image: Number of the image.
            view: Number of the view.
            data: uint8 ``[entry_bytes]``, contiguous.

        Raises:
            OSError: The disk is full, or broken.
        """
        number, offset = self._place(image, view)
        file = self._file(number, create=True)
        assert file is not None
        _write(file, data.data, offset + MARK_BYTES)
        mark = _mark(image, view, data).to_bytes(MARK_BYTES, "little")
        _write(file, memoryview(mark), offset)

    def number_of(self, image: int) -> int:
        """Returns the number of the file that an image's entries are in."""
        return image // self._images

    def has(self, number: int) -> bool:
        """Returns whether a file is there."""
        return number in self._open or self._path(number).exists()

    def numbers(self) -> list[int]:
        """Returns the numbers of the files that are there."""
        return sorted(int(path.stem) for path in self._folder.glob("*.block"))

    def pack(self, number: int) -> bytes | None:
        """Returns a file's entries without the holes between them; None if there is no file.

        Those of one file are read at once, with a descriptor of its own: any thread may ask.
        """
        try:
            with self._path(number).open("rb") as file:
                content = file.read(self._file_bytes)
        except FileNotFoundError:
            return None
        whole = len(content) // self._stride * self._stride
        rows = np.frombuffer(content[:whole], np.uint8).reshape(-1, self._stride)
        places = np.flatnonzero(rows[:, :MARK_BYTES].any(axis=1)).astype("<i8")
        count = len(places).to_bytes(8, "little")
        return b"".join((count, places.tobytes(), rows[places].tobytes()))

    def entries_of(self, pack: bytes) -> int:
        """Returns how many entries a pack holds; 0 if it is none."""
        count = int.from_bytes(pack[:8], "little")
        return count if len(pack) == 8 + count * (8 + self._stride) else 0

    def merge(self, number: int, pack: bytes) -> None:
        """Writes the entries of a pack that are absent from a file; any thread may ask.

        Raises:
            OSError: The disk is full, or broken.
        """
        count = self.entries_of(pack)
        places = np.frombuffer(pack, "<i8", count, 8)
        rows = np.frombuffer(pack, np.uint8, count * self._stride, 8 + 8 * count)
        file = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.fstat(file).st_size < self._file_bytes:
                os.ftruncate(file, self._file_bytes)
            for place, row in zip(places.tolist(), rows.reshape(count, self._stride), strict=True):
                offset = place * self._stride
                inside = 0 <= offset <= self._file_bytes - self._stride
                if inside and not any(os.pread(file, MARK_BYTES, offset)):
                    _write(file, row[MARK_BYTES:].data, offset + MARK_BYTES)
                    _write(file, row[:MARK_BYTES].data, offset)
        finally:
            os.close(file)

    def forget_deleted(self) -> None:
        """Closes the files that somebody has deleted, so that nothing more is written to them."""
        for number, file in list(self._open.items()):
            if os.fstat(file).st_nlink == 0:
                os.close(self._open.pop(number))

    def close(self) -> None:
        """Closes all files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _place(self, image: int, view: int) -> tuple[int, int]:
        number, row = divmod(image, self._images)
        return number, (row * self._views + view) * self._stride

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.block"

    def _file(self, number: int, *, create: bool) -> int | None:
        file = self._open.get(number)
        if file is not None:
            self._open.move_to_end(number)
            return file
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            file = os.open(self._path(number), flags, 0o666)
        except FileNotFoundError:
            if not create:
                return None
            raise
        size = os.fstat(file).st_size
        if size not in (0, self._file_bytes):  # 0: another process is just making it
            self.damaged += 1
        if size < self._file_bytes:
            # Sparse: takes no room yet, and what was cut off reads as absent.
            os.ftruncate(file, self._file_bytes)
        if len(self._open) >= _MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        self._open[number] = file
        return file


def _write(file: int, data: memoryview, offset: int) -> None:
    if os.pwrite(file, data, offset) != data.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _mark(image: int, view: int, data: Bytes) -> int:
    # The place is part of it: an entry that a broken disk moved elsewhere does not fit.
    place = zlib.crc32(struct.pack("<QQ", image, view))
    return zlib.crc32(data.data, place) or 1
