"""A teacher cache's key on a remote folder: what one node has computed, others need not compute.

A block goes there as a pack: the entries that it holds, each with its place and its mark. Packs are
merged into the block that a node has itself, and what a pack holds damaged reads as absent.
"""

from __future__ import annotations

from functools import lru_cache, partial

from kdscale.data._cache_blocks import Blocks
from kdscale.files import Mirror, Remote

_CLOSE_SECONDS = 60.0


class RemoteKey:
    """One key of the teacher caches on a remote folder.

    Args:
        remote: The remote folder of all caches.
        key: The key.

    Attributes:
        away: Whether it could not be read; it is not asked again then.
    """

    def __init__(self, remote: Remote, key: str) -> None:
        self.away = False
        self._remote = remote.below(key)
        self._key = key
        self._mirror = _mirror(remote.uri)
        self._known: dict[str, int] = {}
        """Bytes of the packs that this node's blocks hold."""
        self._new: dict[int, int] = {}
        self._pushed: dict[int, int] = {}

    def header(self) -> bytes | None:
        """Returns the key's header; None if there is none.

        Raises:
            OSError: The remote folder cannot be reached.
        """
        return self._got("header")

    def save_header(self, content: bytes) -> None:
        """Begins to upload the key's header."""
        self._mirror.push(f"{self._key}/header", partial(self._remote.put, content, "header"))

    def pack(self, number: int) -> bytes | None:
        """Returns a block's pack; None if there is none.

        Raises:
            OSError: The remote folder cannot be reached.
        """
        found = self._got(_name(number))
        if found is not None:
            self._known[_name(number)] = len(found)
        return found

    def count(self, number: int, entries: int) -> None:
        """Takes note of entries that a block has got."""
        self._new[number] = self._new.get(number, 0) + entries

    def end_epoch(self, blocks: Blocks) -> None:
        """Begins to upload blocks that have doubled since they were uploaded."""
        for number, new in list(self._new.items()):
            if new >= self._pushed.get(number, 1):
                self._push(number, blocks)

    def close(self, blocks: Blocks) -> None:
        """Uploads what is new, and what the remote folder lacks; waits a while for that."""
        for number in list(self._new):
            self._push(number, blocks)
        self._mirror.push(f"{self._key}/others", partial(self._complete, blocks))
        self._mirror.settle(_CLOSE_SECONDS)

    def _push(self, number: int, blocks: Blocks) -> None:
        self._pushed[number] = self._pushed.get(number, 0) + self._new.pop(number, 0)
        self._mirror.push(f"{self._key}/{number}", partial(self._upload, number, blocks))

    def _complete(self, blocks: Blocks) -> None:
        there = self._remote.sizes()
        for number in blocks.numbers():
            if _name(number) not in there:
                self._upload(number, blocks)

    def _upload(self, number: int, blocks: Blocks) -> None:
        name = _name(number)
        # Another node may have uploaded entries of the same block meanwhile.
        changed = self._remote.sizes().get(name) != self._known.get(name)
        if changed and (there := self._remote.get(name)) is not None:
            blocks.merge(number, there)
        if (pack := blocks.pack(number)) is not None:
            self._remote.put(pack, name)
            self._known[name] = len(pack)

    def _got(self, name: str) -> bytes | None:
        if self.away:
            return None
        try:
            return self._remote.get(name)
        except OSError:
            self.away = True
            raise


def _name(number: int) -> str:
    return f"{number:06d}.pack"


@lru_cache(maxsize=8)
def _mirror(uri: str) -> Mirror:
    return Mirror(str(Remote(uri)))
