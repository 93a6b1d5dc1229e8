"""Golden cases of one family of methods: heavy."""

from __future__ import annotations

from golden._entry import Entry

ENTRIES: tuple[Entry, ...] = ()
