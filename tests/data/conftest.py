from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from sys import addaudithook

import pytest

from .files import Opened

_recorders: list[list[str]] = []


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes):
        for paths in _recorders:
            paths.append(os.fsdecode(arguments[0]))


addaudithook(_record)


@pytest.fixture
def opened_files() -> Opened:
    """Gives a context manager whose value lists every file that is opened inside it."""

    @contextmanager
    def recorder() -> Iterator[list[str]]:
        paths: list[str] = []
        _recorders.append(paths)
        try:
            yield paths
        finally:
            _recorders.remove(paths)

    return recorder
