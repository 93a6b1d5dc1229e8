"""A comparison of studies as one HTML page, and as Markdown and tables."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from kdscale.analysis import _html
from kdscale.analysis._compare import StudyComparison
from kdscale.analysis._compare_tables import comparison_tables
from kdscale.analysis._compare_text import comparison_headline
from kdscale.analysis._export import FORMATS, markdown_text, to_markdown
from kdscale.analysis._notes import BAND_NOTE
from kdscale.analysis._plots import COLOURED, Json, round_digits
from kdscale.analysis._report import replace_file
from kdscale.analysis._sheet import Sheet
from kdscale.analysis.statistics import BudgetCurve

TABLES = "comparison-tables"
"""Folder of the tables, in the comparison's folder."""

_TITLES = {
    "studies": "Studies",
    "test_pairs": "Best configurations on the test set",
    "validation_pairs": "Best configurations on validation",
    "equal_budget": "At equal search budget",
    "settings": "What differs between the study files",
}
_UNITS = {"trials": "complete trials", "seconds": "minutes of training"}
_MOST_POINTS = 400
_PAIR_NOTE = (
    "Paired by seed. The interval is that of a t test, whose p is adjusted for all pairs (Holm); "
    "beside it the bootstrap-t and Wilcoxon's signed ranks. ASO, almost stochastic order, bounds "
    "the share by which the first fails to be better everywhere: below 0.2 it dominates "
    "(from 5 pairs on; fewer show nothing)."
)


@dataclass(frozen=True)
class ComparisonPaths:
    """Where a comparison's files lie.

    Attributes:
        html: The page.
        md: Sentences and tables as Markdown.
        tables: Each table as CSV, Markdown and LaTeX.
    """

    html: Path
    md: Path
    tables: tuple[Path, ...]


def write_comparison(comparison: StudyComparison, folder: Path) -> ComparisonPaths:
    """Returns where it wrote the comparison of studies.

    Args:
        comparison: The studies.
        folder: Made if it is missing.
    """
    with threadpool_limits(limits=1):  # on small matrices threads only wait for each other
        tables = comparison_tables(comparison)
        page = comparison_page(comparison)
        text = comparison_markdown(comparison)
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    paths = ComparisonPaths(
        folder / "comparison.html",
        folder / "comparison.md",
        tuple(folder / TABLES / f"{name}.{ending}" for name in tables for ending in FORMATS),
    )
    for path in paths.tables:
        replace_file(path, FORMATS[path.suffix.removeprefix(".")](tables[path.stem]))
    replace_file(paths.md, text)
    replace_file(paths.html, page)
    return paths


def comparison_markdown(comparison: StudyComparison, *, tables: bool = True) -> str:
    """Returns a comparison's sentences, and its tables if asked, as Markdown."""
    blocks = [f"# {' · '.join(comparison.studies)}\n"] if tables else []
    told = comparison_headline(comparison)
    if not tables:  # MLflow shows the first line alone until a reader opens the rest
        told = tuple(sorted(told, key=lambda one: one.label != "Answer"))
    for one in told:
        blocks.append(f"**{one.label}.** {markdown_text(one.text)}\n")
    if tables:
        for name, table in comparison_tables(comparison).items():
            blocks += [f"## {_TITLES[name]}\n", to_markdown(table)]
    return "\n".join(blocks)


def comparison_page(comparison: StudyComparison) -> str:
    """Returns the whole page."""
    from kdscale.analysis._page import document

    sheet = Sheet(comparison_tables(comparison), comparison.metric.decimals)
    title = " · ".join(comparison.studies)
    return document(
        f"{title} · kdscale compare", "\n".join(_sections(comparison, sheet, title)), sheet
    )


def _sections(comparison: StudyComparison, sheet: Sheet, title: str) -> Iterator[str]:
    yield f'<header><p class="kicker">kdscale compare</p><h1>{_html.escape(title)}</h1></header>'
    told = [(one.label, one.text) for one in comparison_headline(comparison)]
    yield f'<section id="summary">\n{_html.definitions(told, "headline")}\n</section>'
    contents = {
        "studies": _table(
            sheet,
            "studies",
            "Each study by its best configuration; a dot is a seed, the bar their mean. Less its "
            "luck: the best mean without what comes from having been chosen (empirical Bayes). "
            "Plateau: configurations that are not distinguishable from the best. Noise: standard "
            "deviation of one configuration over seeds.",
        ),
        "equal_budget": _budget(comparison, sheet),
        "test_pairs": _table(sheet, "test_pairs", _PAIR_NOTE),
        "validation_pairs": _table(
            sheet,
            "validation_pairs",
            f"{_PAIR_NOTE} The configurations were chosen on these same numbers, which flatters a "
            "study that tried more of them.",
        ),
        "settings": _table(sheet, "settings", ""),
    }
    for name, content in contents.items():
        if content:
            place = name.replace("_", "-")
            yield f'<section id="{place}">\n<h2>{_TITLES[name]}</h2>\n{content}\n</section>'


def _table(sheet: Sheet, name: str, note: str) -> str:
    table = sheet.table(name, _TITLES[name], sortable=name != "settings")
    return table and table + _html.note(note)


def _budget(comparison: StudyComparison, sheet: Sheet) -> str:
    curves: dict[str, dict[str, BudgetCurve]] = {}
    for name, findings in comparison.findings.items():
        for curve in findings.budget_curves:
            curves.setdefault(curve.unit, {})[name] = curve
    figures = {unit: budget_curves(comparison, told) for unit, told in curves.items()}
    if not figures:
        return ""
    unit = next(iter(figures))
    return (
        sheet.picker("budget", "Against", {unit: _UNITS[unit] for unit in figures})
        + sheet.plot("budget", figures[unit], " tall", choices=figures)
        + sheet.table("equal_budget", _TITLES["equal_budget"])
        + _html.note(
            "The best value to expect of a random choice of a study's trials (Tang et al., 2020; "
            f"Dodge et al., 2019). {BAND_NOTE} Of a model-based search the late "
            "trials are better than random ones, which flatters it beside a random search. Trials "
            "that rungs stopped are not among the complete ones; by minutes they count."
        )
    )


def budget_curves(comparison: StudyComparison, curves: dict[str, BudgetCurve]) -> Json:
    """Returns the expected best value of each study against the budget, with bands.

    Args:
        comparison: The studies.
        curves: Study -> its curve, all of one unit.
    """
    names = list(comparison.studies)
    data = []
    for name, curve in curves.items():
        colour = f"var(--c{names.index(name) % COLOURED})"
        per = 60.0 if curve.unit == "seconds" else 1.0
        step = math.ceil(len(curve.budgets) / _MOST_POINTS)
        kept = sorted({*range(0, len(curve.budgets), step), len(curve.budgets) - 1})
        x = [round_digits(curve.budgets[index] / per) for index in kept]
        low, high, mean = (
            [round_digits(ends[index]) for index in kept if index < len(ends)]
            for ends in (curve.low, curve.high, curve.expected)
        )
        same = {"type": "scatter", "mode": "lines", "legendgroup": name}
        if low:
            reached = x[: len(low)]
            data.append(
                same
                | {
                    "x": [*reached, *reversed(reached)],
                    "y": [*high, *reversed(low)],
                    "fill": "toself",
                    "fillcolor": colour,
                    "opacity": 0.14,
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        data.append(
            same
            | {
                "name": html.escape(name),
                "x": x,
                "y": mean,
                "line": {"color": colour, "width": 2},
                "hovertemplate": f"{html.escape(name)}: %{{y}} at %{{x}}<extra></extra>",
                "showlegend": True,
            }
        )
    unit = _UNITS[next(iter(curves.values())).unit]
    metric = comparison.metric
    layout = {
        "xaxis": {"title": {"text": unit}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": html.escape(metric.words + (", %" if metric.percent else ""))}},
        "legend": {"orientation": "h", "y": 1.12},
        "margin": {"l": 64, "r": 16, "t": 40, "b": 56},
    }
    return {"data": data, "layout": layout}
