"""What a published table supports, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kdscale.analysis.statistics import Audit, CurveAudit, Test

_NONE = "–"
_MOST_SEEDS = 9_999


def audit_view(audit: Audit) -> RenderableType:
    """Returns the curves as a table, then what each question found, then the verdict."""
    parts: list[RenderableType] = []
    for published in audit.tables:
        curves = [curve for curve in audit.curves if curve.curve.table == published.name]
        parts.append(Text(f"{published.name} ({len(published.cells)} cells)", style="bold"))
        if curves:
            parts.append(Padding(_curve_table(curves), (0, 0, 1, 2)))
        else:
            text = "no three cells that differ in one hyperparameter only"
            parts.append(Padding(Text(text, style="dim"), (0, 0, 1, 2)))
    answers = Table(box=None, show_header=False, padding=(0, 1, 0, 0), show_edge=False)
    answers.add_column(style="bold", no_wrap=True)
    answers.add_column(overflow="fold")
    for name, text in _answers(audit):
        answers.add_row(name, text)
    return Group(*parts, answers)


def _curve_table(curves: list[CurveAudit]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for heading in ("", "cells", "best at", "score", "best − mean", "noise", "chance", "runs"):
        table.add_column(heading, justify="left" if heading in ("", "best at") else "right")
    for one in curves:
        table.add_row(
            Text(one.curve.column),
            str(len(one.curve.cells)),
            Text(one.best),
            f"{one.best_score:.2f}",
            f"{one.excess:.2f}",
            f"{one.noise_excess:.2f}",
            _NONE if one.chance_best is None else f"{one.chance_best:.0%}",
            _runs(one.seeds),
        )
    return table


def _runs(seeds: int | None) -> str:
    if seeds is None:
        return _NONE
    return f"> {_MOST_SEEDS:,}" if seeds > _MOST_SEEDS else f"{seeds:,}"


def _answers(audit: Audit) -> Iterator[tuple[str, str]]:
    for test in audit.tests:
        yield test.name, _answer(test)
    if audit.noise is not None:
        yield "one run", _SOURCES[audit.noise_source].format(audit.noise)
    if audit.curves:
        yield (
            "columns",
            "noise: best − mean of as many equal cells with noise of the same spread; chance: "
            "that the best cell is truly the best; runs: a cell, to tell the best from the second "
            "best with 80% power if they differ as printed",
        )
    claimed = [test.p_adjusted for test in audit.tests if test in audit.supported]
    known = f" (p = {min(claimed):.2g} after Holm's adjustment)" if claimed else ""
    yield "verdict", f"{audit.verdict}{known}"


_SOURCES = {
    "given": "a standard deviation of {:.2f}, as given",
    "std": "a standard deviation of {:.2f}, from the table's column std",
    "neighbours": "a standard deviation of {:.2f} at most, from differences of neighbouring cells "
    "(if you know it: --noise)",
}


def _answer(test: Test) -> str:
    if test.name == "spread":
        return (
            f"best − mean sums to {test.statistic:.2f}; noise of equal spread shows "
            f"{test.expected:.2f} (p = {test.p:.2f})"
        )
    if test.name == "smoothness":
        return (
            f"roughness {test.statistic:.1f} from neighbour to neighbour; in shuffled order "
            f"{test.expected:.1f} (p = {test.p:.2f})"
        )
    return f"cells vary {test.statistic:.2f} times as much as repeated runs (p = {test.p:.2g})"
