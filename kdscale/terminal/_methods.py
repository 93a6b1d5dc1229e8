"""The methods as a table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from kdscale.losses import Hyperparameter, Method


def methods_table(methods: Mapping[str, Method]) -> Table:
    """Returns a table of the methods: title, paper, and each hyperparameter with its default."""
    table = Table(box=None, padding=(0, 1), show_edge=False)
    for heading in ("method", "hyperparameter", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    for method in methods.values():
        table.add_section()
        table.add_row(f"[bold]{method.name}[/]", "", "", f"[bold]{method.title}[/]")
        table.add_row("", "", "", f"[dim]{method.source}[/]")
        for hyperparameter in method.hyperparameters:
            table.add_row(
                "", hyperparameter.name, f"{hyperparameter.default}", _meaning(hyperparameter)
            )
    return table


def _meaning(hyperparameter: Hyperparameter) -> str:
    parts = [hyperparameter.help]
    if hyperparameter.choices:
        parts.append(f"one of {', '.join(hyperparameter.choices)}")
    if hyperparameter.search is not None:
        low, high = hyperparameter.search
        parts.append(f"papers search {low:g} to {high:g}")
    return "; ".join(parts)
