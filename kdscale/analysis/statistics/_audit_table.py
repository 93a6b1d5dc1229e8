"""Published tables: reading them from CSV and Markdown, and the curves in them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from kdscale.errors import Problem, UserError, did_you_mean

SCORE, RUNS, STD, TABLE = "score", "n", "std", "table"
"""Columns with a meaning; every other one is a hyperparameter."""

_FEWEST_CELLS = 3


@dataclass(frozen=True)
class Cell:
    """One row of a published table.

    Attributes:
        parameters: Text of each hyperparameter, in the order of the table's columns.
        score: What was published.
        n: Runs behind it, 1 if the table does not say.
        std: Their standard deviation, or None.
    """

    parameters: tuple[str, ...]
    score: float
    n: int = 1
    std: float | None = None


@dataclass(frozen=True)
class PublishedTable:
    """Cells that are comparable: one task, one metric.

    Attributes:
        name: From the column ``table``, or the file's name.
        columns: The hyperparameters.
        cells: Every cell once, in the file's order.
    """

    name: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Curve:
    """Cells of a table that differ in one hyperparameter only.

    Attributes:
        table: Name of the table.
        column: The hyperparameter that differs.
        cells: Those whose value is a number come first, in its order.
        values: The hyperparameter's text, one a cell.
        numbers: How many of the cells have a number for their value.
    """

    table: str
    column: str
    cells: tuple[Cell, ...]
    values: tuple[str, ...]
    numbers: int


@dataclass(frozen=True)
class _Row:
    line: int
    texts: tuple[str, ...]


def shipped_tables() -> tuple[str, ...]:
    """Returns the names of the published tables that come with kdscale."""
    folder = files("kdscale.analysis") / "tables"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv")))


def read_tables(source: str) -> tuple[PublishedTable, ...]:
    """Returns the tables of a CSV or Markdown file, or of a name from `shipped_tables`.

    Args:
        source: A path, or the name of a shipped table. One column a hyperparameter and a column
            ``score``; optional ``n`` (runs behind a score), ``std`` (their standard deviation)
            and ``table`` (rows with different text are not compared).

    Raises:
        UserError: There is no such file, or it is no such table; all that is wrong at once.
    """
    if source in shipped_tables():
        text = (files("kdscale.analysis") / "tables" / f"{source}.csv").read_text("utf-8")
        return _tables(source, source, _csv_rows(text))
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        near = [str(file) for file in path.parent.glob("*") if file.suffix in (".csv", ".md")]
        shipped = ", ".join(shipped_tables())
        hint = did_you_mean(source, [*near, *shipped_tables()]) or f"kdscale ships {shipped}"
        raise UserError(
            f"{source}: the table must be a readable file, but: {error.strerror} ({hint})"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: the table must be UTF-8 text, but: {error}") from None
    markdown = path.suffix.lower() in (".md", ".markdown") or text.lstrip().startswith("|")
    return _tables(source, path.stem, _markdown_rows(text) if markdown else _csv_rows(text))


def curves_of(table: PublishedTable) -> tuple[Curve, ...]:
    """Returns every set of at least 3 cells that differ in one hyperparameter only."""
    found = []
    for index, column in enumerate(table.columns):
        groups: dict[tuple[str, ...], list[Cell]] = {}
        for cell in table.cells:
            rest = cell.parameters[:index] + cell.parameters[index + 1 :]
            groups.setdefault(rest, []).append(cell)
        for cells in groups.values():
            if len(cells) < _FEWEST_CELLS:
                continue
            ordered = sorted(cells, key=lambda cell: _order(cell.parameters[index]))
            values = tuple(cell.parameters[index] for cell in ordered)
            numbers = sum(_number(value) is not None for value in values)
            found.append(Curve(table.name, column, tuple(ordered), values, numbers))
    return tuple(found)


def _tables(where: str, name: str, rows: Sequence[_Row]) -> tuple[PublishedTable, ...]:
    if not rows:
        raise UserError(f"{where}:1: the table must have a row of column names and rows of cells")
    header = tuple(text.lower() if text.lower() in _KNOWN else text for text in rows[0].texts)
    problems = list(_header_problems(f"{where}:{rows[0].line}", header))
    columns = tuple(column for column in header if column not in _KNOWN)
    cells: dict[str, dict[tuple[str, ...], Cell]] = {}
    for row in rows[1:] if not problems else ():
        place = f"{where}:{row.line}"
        if len(row.texts) != len(header):
            rule = f"a row must have {len(header)} cells, as the column names"
            problems.append(Problem(place, "", str(len(row.texts)), rule))
            continue
        texts = dict(zip(header, row.texts, strict=True))
        wrong = list(_cell_problems(place, texts))
        problems += wrong
        if wrong:
            continue
        cell = Cell(
            tuple(texts[column] for column in columns),
            float(texts[SCORE]),
            int(texts.get(RUNS) or 1),
            float(texts[STD]) if texts.get(STD) else None,
        )
        known = cells.setdefault(texts.get(TABLE) or name, {})
        if known.setdefault(cell.parameters, cell) != cell:
            said = ", ".join(map(" = ".join, zip(columns, cell.parameters, strict=True)))
            problems.append(Problem(place, said, f"{cell.score:g}", "a cell must have one score"))
    if not problems and not any(len(known) >= _FEWEST_CELLS for known in cells.values()):
        rule = f"a table must have at least {_FEWEST_CELLS} cells"
        problems.append(Problem(f"{where}:{rows[-1].line}", "", "", rule))
    if problems:
        raise UserError("\n".join(map(str, problems)))
    return tuple(
        PublishedTable(table, columns, tuple(known.values())) for table, known in cells.items()
    )


_KNOWN = (SCORE, RUNS, STD, TABLE)


def _header_problems(place: str, header: tuple[str, ...]) -> Iterator[Problem]:
    if SCORE not in header:
        hint = did_you_mean(SCORE, header)
        hint = hint.replace("did you mean", "rename").replace("?", "") if hint else ""
        yield Problem(place, "", ", ".join(header), "there must be a column score", hint)
    elif not set(header) - set(_KNOWN):
        yield Problem(place, "", ", ".join(header), "there must be a column a hyperparameter")
    for column in sorted({column for column in header if header.count(column) > 1}):
        yield Problem(place, "", column, "each column must have a name of its own")


def _cell_problems(place: str, texts: dict[str, str]) -> Iterator[Problem]:
    score, n, std = texts[SCORE], texts.get(RUNS, ""), texts.get(STD, "")
    if _number(score) is None:
        hint = "put the deviation into a column std" if "±" in score else ""
        yield Problem(place, SCORE, score or "nothing", "must be a finite number", hint)
    if n and not (n.isdecimal() and int(n) >= 1):
        yield Problem(place, RUNS, n, "must be a whole number >= 1")
    deviation = _number(std)
    if std and (deviation is None or deviation < 0.0):
        yield Problem(place, STD, std, "must be a number >= 0")


def _csv_rows(text: str) -> list[_Row]:
    reader = csv.reader(io.StringIO(text))
    rows = ((reader.line_num, row) for row in reader)
    return [
        _Row(line, tuple(_plain(cell) for cell in row))
        for line, row in rows
        if any(cell.strip() for cell in row) and not row[0].lstrip().startswith("#")
    ]


def _markdown_rows(text: str) -> list[_Row]:
    """Returns the rows of the first table that has a column ``score``, else of the first one."""
    blocks: list[list[_Row]] = [[]]
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip().startswith("|"):
            blocks.append([])
            continue
        cells = tuple(_plain(cell) for cell in content.strip().strip("|").split("|"))
        if not all(cell and set(cell) <= set(":-") for cell in cells):
            blocks[-1].append(_Row(line, cells))
    tables = [block for block in blocks if block]
    scored = (block for block in tables if SCORE in (text.lower() for text in block[0].texts))
    return next(scored, tables[0] if tables else [])


def _plain(text: str) -> str:
    return text.strip().strip("*`_").strip()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _order(text: str) -> tuple[bool, float, str]:
    number = _number(text)
    return (number is None, number or 0.0, text)
