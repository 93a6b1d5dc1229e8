from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from kdscale.analysis._contents import Contents, sensitivity_name
from kdscale.analysis._export import latex_text, to_csv, to_latex, to_markdown, trials_csv
from kdscale.analysis._findings import Findings
from kdscale.analysis._headline import headline
from kdscale.analysis._html import scale_of
from kdscale.analysis._tables import (
    Cell,
    Column,
    Table,
    configuration_table,
    final_table,
    trial_table,
)
from kdscale.analysis._tables_effects import difference_table, sensitivity_table

from .studies import simulate, study, trial, usual


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_dots_are_drawn_apart_beside_those_of_a_collapsed_training() -> None:
    rows = [(Cell("", marks=(70.0 + number / 4,)),) for number in range(8)]
    usual_scale = scale_of(Table((Column("by seed"),), tuple(rows), reference=69.0), 2)
    rows.append((Cell("", marks=(1.0,)),))
    scale = scale_of(Table((Column("by seed"),), tuple(rows), reference=69.0), 2)
    assert usual_scale is not None
    assert scale is not None
    assert usual_scale.text == "70.00 … 71.75"
    assert scale.text == "≤ 70.00 … 71.75"
    assert (scale.low, scale.high) == (usual_scale.low, usual_scale.high)
    assert scale.low < 69.0
    assert scale.x(1.0) == scale.x(scale.low)


def test_what_was_raced_out_says_so_and_counts_as_no_pruned_trial() -> None:
    why = "raced out after 1 seed: surely no better than c001 (level 5%)"
    spared = trial(2, 0, 1, None, "pruned", reason=why)
    spared = replace(spared, history=(), attempt=0, train_seconds=0.0)
    trials = [trial(0, 0, 0, 60.0), trial(1, 1, 0, 72.0), spared, trial(3, 1, 1, 72.5)]
    table = configuration_table(study(trials, rungs=(), parameters=()), None)
    assert [column.title for column in table.columns][-3:] == ["pruned", "failed", "raced out"]
    best, worse = texts(table)
    assert (best[0], best[3], best[-1]) == ("c001", "2", "–")
    assert (worse[0], worse[3], worse[-3]) == ("c000", "1", "–")
    assert worse[-1] == "after 1 seed: surely no better than c001 (level 5%)"
    cost = next(one.text for one in headline(study(trials)) if one.label == "Cost")
    assert "A race spared 1 trial: 1 configuration got no further seed." in cost
    assert "Rungs" not in cost


def test_csv_has_a_row_a_trial_and_loses_no_digit() -> None:
    value = 70.123456789012345
    reason = 'quoted "reason", with comma'
    record = usual()
    first = replace(record.trials[0], value=value, reason=reason)
    record = replace(record, trials=(first, *record.trials[1:]))
    rows = list(csv.DictReader(io.StringIO(trials_csv(record))))
    assert len(rows) == 10
    assert float(rows[0]["val_accuracy"]) == value
    assert rows[0]["reason"] == reason
    assert (rows[0]["alpha"], rows[0]["configuration"]) == ("0.01", "0")
    assert rows[3]["val_accuracy"] == ""
    assert (rows[9]["trial"], rows[9]["configuration"]) == ("undistilled-s1", "undistilled")


def test_trials_are_listed_best_first_then_the_unfinished() -> None:
    names = [row[0].text for row in trial_table(usual()).rows]
    assert names[:4] == ["c002-s1", "c001-s1", "c001-s0", "c000-s1"]
    assert names[-3:] == ["c002-s0", "c003-s0", "c003-s1"]
    lowest = trial_table(replace(usual(), goal="minimize")).rows
    assert lowest[0][0].text == "undistilled-s0"


def test_configurations_start_with_the_control_and_say_n() -> None:
    table = configuration_table(usual(), None)
    titles = [column.title for column in table.columns]
    rows = [dict(zip(titles, (cell.text for cell in row), strict=True)) for row in table.rows]
    assert [row["configuration"] for row in rows] == ["undistilled", "c001", "c000", "c002", "c003"]
    assert [row["n"] for row in rows] == ["2", "2", "2", "1", "0"]
    assert (rows[1]["mean"], rows[1]["95% interval"]) == ("72.25", "69.07 to 75.43")
    assert (rows[3]["mean"], rows[3]["95% interval"], rows[3]["pruned"]) == ("75.00", "–", "0")
    assert table.reference == 69.5


def test_final_table_sets_the_three_side_by_side() -> None:
    final = usual().final
    assert final is not None
    rows = [[cell.text for cell in row] for row in final_table(final).rows]
    assert rows[0][:5] == ["teacher", "84,000", "81.50", "–", "1"]
    assert rows[1][:5] == ["undistilled student", "23,000", "68.50", "62.15 to 74.85", "2"]
    assert rows[2][0] == "distilled student, c001"
    assert rows[3] == [
        "distilled − undistilled, paired by seed",
        "–",
        "+2.95",
        "+2.31 to +3.59",
        "2",
        "better",
    ]


def test_markdown_escapes_what_would_break_a_table() -> None:
    record = study([trial(0, 0, 0, None, "failed", {"alpha": "a|b"}, "<b>\nnot | finite")])
    lines = to_markdown(trial_table(record)).splitlines()
    assert len(lines) == 3
    assert r"\<b> not \| finite" in lines[2]
    assert r"a\|b" in lines[2]
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_the_plateau_stands_out() -> None:
    record = simulate(6, 4, design="oat")
    table = configuration_table(record, Findings(record).plateau)
    column = [one.title for one in table.columns].index("against the best")
    standing = {row[0].text: (row[column].text, row[1].strong) for row in table.rows}
    assert set(standing.values()) == {("–", False), ("plateau", True), ("worse", False)}
    assert standing["undistilled"] == ("–", False)
    assert standing[table.rows[1][0].text] == ("plateau", True)


def test_differences_are_to_the_best_and_to_the_undistilled() -> None:
    table = difference_table(Findings(simulate(6, 4, design="oat")))
    titles = [one.title for one in table.columns]
    rows = [dict(zip(titles, row, strict=True)) for row in texts(table)]
    assert rows[0]["− best"] == "the best"
    assert {row["than undistilled"] for row in rows} == {"better"}
    assert {row["than best"] for row in rows[1:]} == {"worse", "not distinguishable from noise"}
    assert len(set(titles)) == len(titles)
    alone = difference_table(Findings(simulate(6, 4, design="oat", controls=False)))
    assert len(alone.columns) == len(titles) - 4


def test_one_hyperparameter_across_as_in_the_papers() -> None:
    findings = Findings(simulate(6, 4, design="oat"))
    table = sensitivity_table(findings, findings.lines[2])
    assert [one.title for one in table.columns] == ["depth", "3", "5", "7", "9"]
    rows = texts(table)
    assert [row[0] for row in rows] == ["validation accuracy, %", "± (95%)", "n", "configuration"]
    assert rows[2][1:] == ["4", "4", "4", "4"]
    assert rows[3][3] == "c000"
    assert sensitivity_name("a b/c") == "sensitivity_a_b_c"


def test_csv_has_numbers_unrounded_and_intervals_in_two_columns() -> None:
    columns = (Column("name"), Column("mean", numeric=True), Column("range", interval=True))
    rows = ((Cell("a"), Cell("1.23", 1.23456), Cell("1 to 2", 1.0, ends=(1.0, 2.0))),)
    lines = to_csv(Table(columns, (*rows, (Cell("b"), Cell("–"), Cell("–"))))).splitlines()
    assert lines == ["name,mean,range low,range high", "a,1.23456,1.0,2.0", "b,,,"]


def test_latex_is_booktabs_and_escaped() -> None:
    columns = (Column("a_b", code=True), Column("n", numeric=True), Column("dots", seeds=True))
    table = Table(columns, ((Cell("50% & more"), Cell("−1", -1.0, strong=True), Cell("1, 2")),))
    assert to_latex(table).splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"\texttt{a\_b} & n \\",
        r"\midrule",
        r"50\% \& more & \textbf{$-$1} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert latex_text("\\a{}\n~^<") == (
        r"\textbackslash{}a\{\} \textasciitilde{}\textasciicircum{}\textless{}"
    )


@pytest.mark.parametrize("name", ["configurations", "differences", "test_set", "trials"])
def test_every_table_can_be_written_in_every_form(name: str) -> None:
    table = Contents(usual()).tables[name]
    shown = sum(not column.seeds for column in table.columns)
    body = [line for line in to_latex(table).splitlines() if line.endswith("\\\\")]
    assert len(body) == len(table.rows) + 1
    assert {line.replace("\\&", "").count("&") for line in body} == {shown - 1}
    assert len({len(row) for row in csv.reader(io.StringIO(to_csv(table)))}) == 1
    assert len(to_markdown(table).splitlines()) == len(table.rows) + 2
