from __future__ import annotations

from pathlib import Path

import pytest

from kdscale.analysis.statistics import Cell, curves_of, read_tables, shipped_tables
from kdscale.errors import UserError


def written(folder: Path, text: str, name: str = "t.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_shipped_tables_are_as_published() -> None:
    assert shipped_tables() == ("ldrld-depth", "ldrld-sensitivity")
    tables = read_tables("ldrld-sensitivity")
    assert [len(table.cells) for table in tables] == [17, 17, 15, 15]
    curves = [curve for table in tables for curve in curves_of(table)]
    assert [(curve.column, len(curve.cells)) for curve in curves] == [
        ("alpha", 9),
        ("beta", 9),
        ("alpha", 9),
        ("beta", 9),
        ("alpha", 8),
        ("beta", 8),
        ("alpha", 8),
        ("beta", 8),
    ]
    bold = [max(cell.score for cell in curve.cells) for curve in curves]
    assert bold == [72.20, 72.20, 77.33, 77.33, 60.67, 60.67, 60.31, 60.31]
    depth = [curve for table in read_tables("ldrld-depth") for curve in curves_of(table)]
    assert [(curve.values, curve.numbers) for curve in depth] == [
        (("3", "5", "7", "9", "NCKD"), 4)
    ] * 2


CSV = "# a remark\nalpha,Score,n,std\n1,70.0,3,0.2\n\n10,71.5,3,0.3\n2,**70.5**,,\n"
MARKDOWN = """# Results

| left | right |
|---|---|
| a | b |

| alpha | score | n | std |
|:--|--:|---|---|
| 1 | 70.0 | 3 | 0.2 |
| 10 | 71.5 | 3 | 0.3 |
| `2` | **70.5** | | |
"""


@pytest.mark.parametrize(("name", "text"), [("t.csv", CSV), ("t.md", MARKDOWN)])
def test_csv_and_markdown_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (table,) = read_tables(written(tmp_path, text, name))
    assert table.name == "t"
    assert table.columns == ("alpha",)
    assert table.cells == (
        Cell(("1",), 70.0, 3, 0.2),
        Cell(("10",), 71.5, 3, 0.3),
        Cell(("2",), 70.5),
    )
    (curve,) = curves_of(table)
    assert curve.values == ("1", "2", "10")


def test_a_grid_has_a_curve_for_every_line(tmp_path: Path) -> None:
    rows = [f"{a},{b},{a + b}" for a in (1, 2, 3) for b in (1, 2, 3)]
    (table,) = read_tables(written(tmp_path, "\n".join(["alpha,beta,score", *rows])))
    assert [curve.column for curve in curves_of(table)] == ["alpha"] * 3 + ["beta"] * 3


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", [":1: the table must have a row of column names"]),
        (
            "alpha,scores\n1,2\n",
            [':1: there must be a column score, but got alpha, scores (rename "scores")'],
        ),
        ("score\n1\n2\n3\n", [":1: there must be a column a hyperparameter, but got score"]),
        ("a,a,score\n1,2,3\n", [":1: each column must have a name of its own, but got a"]),
        ("a,score\n1,2\n2,3\n", [":3: a table must have at least 3 cells"]),
        ("a,score\n1,2\n1,3\n", [":3: a = 1: a cell must have one score, but got 3"]),
        ("a,score\n1,70 ± 0.2\n", ["score: must be a finite number, but got 70 ± 0.2 (put the"]),
        ("a,score\n1,\n", [":2: score: must be a finite number, but got nothing"]),
        (
            "a,score,n,std\n1,nan,1.5,-1\n2,3\n",
            [
                ":2: score: must be a finite number, but got nan",
                ":2: n: must be a whole number >= 1, but got 1.5",
                ":2: std: must be a number >= 0, but got -1",
                ":3: a row must have 4 cells, as the column names, but got 2",
            ],
        ),
    ],
)
def test_all_that_is_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, messages: list[str]
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_tables(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(path)
        assert message in line


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    written(tmp_path, CSV)
    with pytest.raises(UserError, match="did you mean"):
        read_tables(str(tmp_path / "tt.csv"))
    with pytest.raises(UserError, match="kdscale ships ldrld-depth, ldrld-sensitivity"):
        read_tables("zzz")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="must be UTF-8 text"):
        read_tables(str(tmp_path / "b.csv"))


def test_a_table_as_spreadsheets_save_it(tmp_path: Path) -> None:
    source = written(tmp_path, "\ufeffscore,alpha\n70.0,1\n71.0,2\n72.0,3\n")
    [table] = read_tables(source)
    assert [cell.score for cell in table.cells] == [70.0, 71.0, 72.0]
    assert [cell.parameters for cell in table.cells] == [("1",), ("2",), ("3",)]
