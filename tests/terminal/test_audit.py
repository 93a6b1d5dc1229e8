from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from kdscale.analysis.statistics import Audit, Cell, PublishedTable, audit, read_tables
from kdscale.terminal import audit_view


def shown(found: Audit) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(audit_view(found))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("name", ["ldrld-depth", "ldrld-sensitivity"])
def test_shipped_tables_fit_80_columns(name: str) -> None:
    lines = shown(audit(read_tables(name), noise=0.25))
    assert max(cell_len(line) for line in lines) <= 80
    assert lines[-1].split() == ["verdict", "not", "distinguishable", "from", "noise"]


def test_an_effect_is_told_with_its_p() -> None:
    cells = tuple(Cell((str(x),), 70.0 + x, 5, 0.1) for x in range(6))
    lines = shown(audit([PublishedTable("[t]", ("alpha",), cells)]))
    text = " ".join(" ".join(lines).split())
    assert "[t] (6 cells)" in text
    assert "from the table's column std" in text
    assert "cells differ by more than repeated runs do (p = " in text


def test_a_table_without_curves() -> None:
    cells = tuple(Cell((str(x), str(x)), 70.0 + x) for x in range(4))
    text = " ".join(shown(audit([PublishedTable("t", ("alpha", "beta"), cells)])))
    assert "no three cells that differ in one hyperparameter only" in text
