"""Filling the teacher cache, while it happens."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdscale.search import Filled

_LINES = 10


def show_filling(progress: Iterator[Filled], console: Console) -> Filled:
    """Shows a bar, or a line for each tenth where there is no terminal, and returns the end."""
    columns = (TextColumn("teacher cache"), BarColumn(), MofNCompleteColumn())
    filled = Filled(0, 0, 0, 1)
    told = 0
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=None)
        for filled in progress:
            bar.update(task, completed=filled.done, total=filled.pairs)
            tenth = _LINES * filled.done // max(filled.pairs, 1)
            if not console.is_terminal and tenth > told:
                told = tenth
                console.print(f"teacher cache: {filled.done:,} of {filled.pairs:,} pairs")
    return filled
