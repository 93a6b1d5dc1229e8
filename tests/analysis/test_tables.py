from __future__ import annotations

import csv
import io
from dataclasses import replace

from kdscale.analysis._tables import (
    configuration_table,
    final_table,
    to_markdown,
    trial_table,
    trials_csv,
)

from .studies import study, trial, usual


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
    table = configuration_table(usual())
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
