"""Golden cases of one family of methods: logits."""

from __future__ import annotations

from golden._entry import Entry

ENTRIES: tuple[Entry, ...] = ()
