"""Straightforward forms of one family of methods: heavy."""

from __future__ import annotations

from plain._form import Forms

FORMS: tuple[Forms, ...] = ()
