"""Pieces of HTML: escaped text, tables, rows of dots."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kdscale.analysis._tables import Cell, Column, Table
from kdscale.analysis.statistics import common_range

_STRIP_WIDTH = 132
_STRIP_HEIGHT = 16
_STRIP_MARGIN = 6

escape = html.escape


@dataclass(frozen=True)
class Scale:
    """The axis that all rows of dots in a table share.

    Attributes:
        low: Value at the left end.
        high: Value at the right end; above `low`.
        text: The ends as the table's head shows them.
        reference: Where a line crosses all rows, if anywhere.
    """

    low: float
    high: float
    text: str
    reference: float | None

    def x(self, value: float) -> float:
        """Returns the horizontal place of a value in pixels, held within the strip."""
        inner = _STRIP_WIDTH - 2 * _STRIP_MARGIN
        place = (value - self.low) / (self.high - self.low)
        return round(_STRIP_MARGIN + inner * min(max(place, 0.0), 1.0), 1)


def scale_of(table: Table, decimals: int) -> Scale | None:
    """Returns the axis for a table's dots, or None where no row has any.

    A collapsed training does not squeeze all others together: what is far out stands at the end.
    """
    values = [mark for row in table.rows for cell in row for mark in cell.marks]
    if not values:
        return None
    low, high = common_range(values)
    below, above = "≤ " * (min(values) < low), "≥ " * (max(values) > high)
    text = f"{below}{low:.{decimals}f} … {above}{high:.{decimals}f}"
    if table.reference is not None:
        low, high = min(low, table.reference), max(high, table.reference)
    pad = 0.04 * (high - low) or 0.5
    return Scale(low - pad, high + pad, text, table.reference)


def table_html(table: Table, name: str, *, sortable: bool = False, decimals: int = 2) -> str:
    """Returns a table; with `sortable` its heads are buttons for `report.js`.

    Args:
        table: The table.
        name: The table's accessible name.
        sortable: Whether a click on a head sorts.
        decimals: Decimals of the ends of the axis above the dots.
    """
    scale = scale_of(table, decimals)
    heads = "".join(_head(column, sortable, scale) for column in table.columns)
    rows = "\n".join(_row(row, table.columns, scale) for row in table.rows)
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table{kind}>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def definitions(pairs: Iterable[tuple[str, str]], style: str) -> str:
    """Returns a list of labels with their text."""
    rows = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in pairs)
    return f'<dl class="{style}">{rows}</dl>'


def note(text: str) -> str:
    """Returns a paragraph in small print; empty for no text."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def data_block(name: str, data: Any) -> str:
    """Returns JSON in a script element that cannot be closed from within."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{name}">{safe}</script>'


def _head(column: Column, sortable: bool, scale: Scale | None) -> str:
    title = escape(column.title)
    if column.code:
        title = f"<code>{title}</code>"
    if sortable:
        title = f'<button type="button">{title}</button>'
    if column.title == "by seed" and scale is not None:
        title += f' <span class="ends">{escape(scale.text)}</span>'
    style = ' class="number"' if column.numeric else ""
    return f'<th scope="col"{style}>{title}</th>'


def _row(cells: Sequence[Cell], columns: Sequence[Column], scale: Scale | None) -> str:
    parts = []
    for cell, column in zip(cells, columns, strict=True):
        style = " ".join(part for part in ("number" if column.numeric else "", cell.style) if part)
        attributes = f' class="{style}"' if style else ""
        if cell.key is not None and str(cell.key) != cell.text:
            attributes += f' data-key="{escape(str(cell.key))}"'
        parts.append(f"<td{attributes}>{_content(cell, scale)}</td>")
    return f"<tr>{''.join(parts)}</tr>"


def _content(cell: Cell, scale: Scale | None) -> str:
    if not cell.marks or scale is None:
        text = f"<strong>{escape(cell.text)}</strong>" if cell.strong else escape(cell.text)
        return f'<a href="{escape(cell.link)}">{text}</a>' if cell.link else text
    middle = _STRIP_HEIGHT / 2
    mean = scale.x(math.fsum(cell.marks) / len(cell.marks))
    dots = "".join(f'<circle cx="{scale.x(m)}" cy="{middle}" r="3.5"/>' for m in cell.marks)
    return (
        f'<svg class="strip" width="{_STRIP_WIDTH}" height="{_STRIP_HEIGHT}" role="img" '
        f'aria-label="{escape(cell.text)}"><title>{escape(cell.text)}</title>'
        f'<line class="axis" x1="0" x2="{_STRIP_WIDTH}" y1="{middle}" y2="{middle}"/>'
        f"{_reference(scale)}{dots}"
        f'<line class="mean" x1="{mean}" x2="{mean}" y1="1" y2="{_STRIP_HEIGHT - 1}"/></svg>'
    )


def _reference(scale: Scale) -> str:
    if scale.reference is None:
        return ""
    x = scale.x(scale.reference)
    return f'<line class="reference" x1="{x}" x2="{x}" y1="0" y2="{_STRIP_HEIGHT}"/>'
