"""Golden cases of one family of methods: relations."""

from __future__ import annotations

from golden._entry import Entry

ENTRIES: tuple[Entry, ...] = ()
