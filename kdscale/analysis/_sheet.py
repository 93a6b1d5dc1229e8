"""What a page holds beside its text: tables with buttons, and the places of plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdscale.analysis import _html
from kdscale.analysis._export import FORMATS
from kdscale.analysis._tables import Table

_FORMAT_NAMES = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}


class Sheet:
    """A page in the making.

    Args:
        tables: Name of a file without its ending -> table.
        decimals: Decimals of the metric.

    Attributes:
        figures: Name of a plot's place -> ``figure``, and ``choices`` or ``series`` to choose from.
        files: Name of a file to save -> its text.
    """

    def __init__(self, tables: Mapping[str, Table], decimals: int) -> None:
        self.tables = tables
        self.decimals = decimals
        self.figures: dict[str, Any] = {}
        self.files: dict[str, str] = {}

    def texts(self, name: str) -> Mapping[str, str]:
        """Returns a table as text, by the ending of its file."""
        return {ending: write(self.tables[name]) for ending, write in FORMATS.items()}

    def table(self, name: str, label: str, *, sortable: bool = True) -> str:
        """Returns one of the tables with its buttons; empty if it has no rows."""
        table = self.tables.get(name)
        if table is None:
            return ""
        texts = self.texts(name)
        self.files |= {f"{name}.{ending}": text for ending, text in texts.items()}
        buttons = "".join(
            f'<button type="button" data-save="{_html.escape(name)}.{ending}">'
            f"{_FORMAT_NAMES[ending]}</button>"
            for ending in texts
        )
        html = _html.table_html(table, label, sortable=sortable, decimals=self.decimals)
        return f'{html}\n<p class="save">Save as {buttons}</p>'

    def plot(self, name: str, figure: Any, style: str = "", **others: Any) -> str:
        """Returns the place of a plot and keeps its figure."""
        self.figures[name] = {"figure": figure, **others}
        height = figure["layout"].get("height")
        size = f' style="height: {height}px"' if height else ""
        return f'<div class="plot{style}" id="plot-{name}"{size}></div>'

    def picker(self, name: str, label: str, choices: Mapping[str, str]) -> str:
        """Returns a choice of what a plot shows."""
        options = "".join(
            f'<option value="{_html.escape(value)}">{_html.escape(text)}</option>'
            for value, text in choices.items()
        )
        return (
            f'<label class="pick">{_html.escape(label)} '
            f'<select id="pick-{name}">{options}</select></label>'
        )
