"""Straightforward forms of one family of methods: core."""

from __future__ import annotations

from plain._form import Forms

FORMS: tuple[Forms, ...] = ()
