"""A folder on any filesystem that pyarrow knows: S3, Google Cloud, Azure, HDFS, NFS, a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_ATOMIC = {"s3", "gcs", "abfs"}
"""Kinds of storage where a reader finds the whole new object or the old one."""

_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")


def uri_problem(uri: str) -> str:
    """Returns the rule that a remote folder's URI breaks; empty if it breaks none."""
    parts = urlsplit(uri)
    if parts.scheme not in _SCHEMES:
        return f"must be a URI of {', '.join(_SCHEMES)}"
    if parts.password or (parts.scheme == "s3" and "@" in parts.netloc):
        return "must hold no password or key: they come from the environment, as AWS's tools do it"
    if not (parts.netloc or parts.path.strip("/")):
        return "must name a bucket or a folder"
    return ""


class Remote:
    """Files by name below one folder; it is opened with the first call.

    Every method raises OSError if the storage cannot be reached, or refuses.

    Args:
        uri: The folder; options of S3-compatible servers are its query, such as
            ``s3://bucket/folder?endpoint_override=HOST:9000&scheme=http&region=us-east-1``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: tuple[Any, str] | None = None

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.uri,)

    def __str__(self) -> str:
        parts = urlsplit(self.uri)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))

    def below(self, name: str) -> Remote:
        """Returns a folder in this one."""
        parts = urlsplit(self.uri)
        path = f"{parts.path.rstrip('/')}/{name}"
        return Remote(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))

    def put(self, data: bytes | Path, name: str) -> None:
        """Writes a file: whoever reads it finds the old one or the new one, never a part.

        Args:
            data: Its bytes, or the file that holds them.
            name: Its name, with folders.
        """
        import pyarrow as pa

        # As one buffer: a stream that is left in an error would be closed, and so become a file.
        whole = pa.py_buffer(data) if isinstance(data, bytes) else _buffer(data)
        with self._at(name) as (files, path):
            if files.type_name in _ATOMIC:
                with files.open_output_stream(path) as stream:
                    stream.write(whole)
                return
            draft = f"{path}.{os.uname().nodename}.{os.getpid()}.part"
            files.create_dir(path.rpartition("/")[0], recursive=True)
            with files.open_output_stream(draft) as stream:
                stream.write(whole)
            files.move(draft, path)

    def get(self, name: str) -> bytes | None:
        """Returns a file's bytes; None if there is no such file."""
        try:
            with self._at(name) as (files, path), files.open_input_file(path) as stream:
                data: bytes = stream.read()
                return data
        except FileNotFoundError:
            return None

    def fetch(self, name: str, local: Path) -> bool:
        """Copies a file to this machine, whole or not at all, and returns whether it is there."""
        data = self.get(name)
        if data is None:
            return False
        local.parent.mkdir(parents=True, exist_ok=True)
        draft = local.with_name(f".{local.name}.{os.uname().nodename}.{os.getpid()}")
        try:
            draft.write_bytes(data)
            os.replace(draft, local)
        finally:
            draft.unlink(missing_ok=True)
        return True

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Returns the files below a folder, folders in it included, by name, and their bytes."""
        from pyarrow.fs import FileSelector, FileType

        with self._at(folder) as (files, path):
            found = files.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))
            start = len(self._open()[1].rstrip("/")) + 1
            return {
                info.path[start:]: info.size
                for info in found
                if info.type == FileType.File and not info.path.endswith(".part")
            }

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        try:
            with self._at(name) as (files, path):
                files.delete_file(path)
        except FileNotFoundError:
            pass

    def delete_drafts(self, name: str) -> None:
        """Deletes what processes that were killed while they wrote a file have left of it."""
        from pyarrow.fs import FileSelector

        folder, _, file = name.rpartition("/")
        with self._at(folder) as (files, path):
            if files.type_name in _ATOMIC:
                return
            for info in files.get_file_info(FileSelector(path, allow_not_found=True)):
                if info.base_name.startswith(f"{file}.") and info.base_name.endswith(".part"):
                    with suppress(FileNotFoundError):
                        files.delete_file(info.path)

    def check(self) -> None:
        """Writes, reads and deletes a small file."""
        name = f".kdscale-{os.uname().nodename}-{os.getpid()}"
        self.put(b"kdscale", name)
        if self.get(name) != b"kdscale":
            raise OSError("what is written is not what is read")
        self.delete(name)

    @contextmanager
    def _at(self, name: str) -> Iterator[tuple[Any, str]]:
        from pyarrow.lib import ArrowException

        try:
            files, root = self._open()
            yield files, f"{root.rstrip('/')}/{name}".rstrip("/")
        except OSError:
            raise
        except (ArrowException, ValueError) as error:
            raise OSError(str(error)) from error

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            from pyarrow.fs import FileSystem

            self._opened = FileSystem.from_uri(self.uri)
        return self._opened


def _buffer(path: Path) -> Any:
    import pyarrow as pa

    if path.stat().st_size == 0:
        return pa.py_buffer(b"")
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()
