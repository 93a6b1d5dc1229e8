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

    def _file(self, number: int, *, create: bool) -> int | None:
        file = self._open.get(number)
        if file is not None:
            self._open.move_to_end(number)
            return file
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            file = os.open(self._folder / f"{number:06d}.block", flags, 0o666)
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
