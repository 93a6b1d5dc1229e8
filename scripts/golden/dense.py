"""Golden cases of one family of methods: dense."""

from __future__ import annotations

from golden._entry import Entry

ENTRIES: tuple[Entry, ...] = ()
