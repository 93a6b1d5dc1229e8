"""The methods as tables: all of them a line each, or one with its hyperparameters."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdscale.losses import Hyperparameter, Method, NotPublic, common_hyperparameters


def methods_table(methods: Iterable[Method]) -> Table:
    """Returns a line for each method: name, title, and what it reads."""
    table = _table("method", "title", "reads")
    for method in methods:
        table.add_row(f"[bold]{method.name}[/]", method.title, ", ".join(method.reads))
    return table


def not_public_table(rows: Iterable[NotPublic]) -> Table:
    """Returns the methods that are named in result tables but whose specification is not public."""
    table = _table("method", "specification not public: what is known", "why it is not here")
    for row in rows:
        table.add_row(f"[bold]{row.name}[/]", f"{row.title}. {row.known}", row.reason)
    return table


def method_view(method: Method) -> RenderableType:
    """Returns one method: title, paper, and each hyperparameter with its default."""
    table = _table("hyperparameter", "default", "meaning")
    for hyperparameter in method.hyperparameters:
        table.add_row(hyperparameter.name, _default(hyperparameter), _meaning(hyperparameter))
    table.add_section()
    for hyperparameter in common_hyperparameters(method):
        table.add_row(hyperparameter.name, _default(hyperparameter), _meaning(hyperparameter))
    heading = Text.assemble((method.name, "bold"), f"  {method.title}")
    reads = Text(f"reads {', '.join(method.reads)}", style="dim")
    return Group(heading, Text(method.source, style="dim"), reads, table)


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _default(hyperparameter: Hyperparameter) -> str:
    default = hyperparameter.default
    return f"{default:g}" if isinstance(default, float) else f"{default}"


def _meaning(hyperparameter: Hyperparameter) -> str:
    parts = [hyperparameter.help]
    if hyperparameter.choices:
        parts.append(f"one of {', '.join(hyperparameter.choices)}")
    if hyperparameter.search is not None:
        low, high = hyperparameter.search
        parts.append(f"papers search {low:g} to {high:g}")
    return "; ".join(parts)
