"""Tables as text: Markdown, CSV, and LaTeX with booktabs' rules."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

from kdscale.analysis._format import NOTHING
from kdscale.analysis._tables import Cell, Column, Table
from kdscale.records import StudyRecord

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{GREEK SMALL LETTER DELTA}": r"$\delta$",
}


def markdown_text(text: str) -> str:
    """Returns the text on one line, with what Markdown would read as markup escaped."""
    flat = " ".join(text.split())
    for mark in "\\|`*<[":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def latex_text(text: str) -> str:
    """Returns the text on one line, with what LaTeX would read as markup escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def to_markdown(table: Table) -> str:
    """Returns the table in GitHub's Markdown."""
    heads = [f"`{column.title}`" if column.code else column.title for column in table.columns]
    rules = ["---:" if column.numeric else ":---" for column in table.columns]
    rows = [[_bold(cell, markdown_text(cell.text), "**{}**") for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, rules, *rows]) + "\n"


def to_csv(table: Table) -> str:
    """Returns the table as CSV: numbers unrounded, an interval as two columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([title for column in table.columns for title in _titles(column)])
    for row in table.rows:
        pairs = zip(row, table.columns, strict=True)
        writer.writerow([value for cell, column in pairs for value in _values(cell, column)])
    return out.getvalue()


def to_latex(table: Table) -> str:
    """Returns the table as a LaTeX tabular, without the values of single seeds."""
    kept = [index for index, column in enumerate(table.columns) if not column.seeds]
    columns = [table.columns[index] for index in kept]
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in columns)}}}",
        "\\toprule",
        f"{' & '.join(_latex_head(column) for column in columns)} \\\\",
        "\\midrule",
    ]
    for row in table.rows:
        cells = [_bold(row[index], latex_text(row[index].text), "\\textbf{{{}}}") for index in kept]
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def trials_csv(study: StudyRecord) -> str:
    """Returns the trials as CSV, one row a trial, numbers unrounded, controls last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ("trial", "number", "configuration", "seed", "state", "reason", study.metric)
    tail = ("epochs", "attempt", "train_seconds", "group")
    writer.writerow([*head, *study.parameters, *tail])
    for trial in (*study.trials, *study.controls):
        configuration = "undistilled" if trial.configuration is None else trial.configuration
        value = "" if trial.value is None else trial.value
        writer.writerow(
            [
                *(trial.name, trial.number, configuration, trial.seed, trial.state, trial.reason),
                value,
                *(trial.parameters.get(name, "") for name in study.parameters),
                *(len(trial.history), trial.attempt, trial.train_seconds, trial.group),
            ]
        )
    return out.getvalue()


FORMATS: Mapping[str, Callable[[Table], str]] = MappingProxyType(
    {"csv": to_csv, "md": to_markdown, "tex": to_latex}
)
"""Ending of a file -> what writes a table into it."""


def _bold(cell: Cell, text: str, form: str) -> str:
    return form.format(text) if cell.strong else text


def _latex_head(column: Column) -> str:
    title = latex_text(column.title)
    return f"\\texttt{{{title}}}" if column.code else title


def _titles(column: Column) -> list[str]:
    if column.interval:
        return [f"{column.title} low", f"{column.title} high"]
    return [column.title]


def _values(cell: Cell, column: Column) -> list[float | str]:
    if column.interval:
        return list(cell.ends) if cell.ends else ["", ""]
    if (column.numeric or column.code) and isinstance(cell.key, (int, float)):
        return [cell.key]
    return ["" if cell.text == NOTHING else cell.text]
