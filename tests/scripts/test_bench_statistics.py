from __future__ import annotations

import bench_statistics
import pytest


def test_every_claim_has_its_row() -> None:
    rows = [
        *bench_statistics.intervals(3),
        *bench_statistics.claims(3),
        *bench_statistics.methods(3),
        *bench_statistics.races(3),
    ]
    assert {len(row) for row in rows} == {5}
    names = {row[0] for row in rows}
    assert "mean, t interval" in names
    assert "race, tolerance 0.1: runs of those of grid x 5 seeds" in names
    assert {row[1] for row in rows} == {*bench_statistics.SURFACES, "needle", "8 seeds"}


def test_importances_say_what_they_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = {"pawn": bench_statistics.MEASURES["pawn"]}
    monkeypatch.setattr(bench_statistics, "MEASURES", measures)
    rows = list(bench_statistics.importances(2))
    assert [row[:2] for row in rows] == [
        ("false claim: pawn", "flat"),
        ("false claim: pawn", "one matters"),
        ("effect found: pawn", "one matters"),
    ]


def test_equal_searches_of_each_size_have_their_row() -> None:
    rows = list(bench_statistics.searches(2))
    assert {len(row) for row in rows} == {5}
    assert [row[1] for row in rows[:2]] == ["8 configurations x 3", "16 configurations x 1"]
    assert all(0.0 <= float(row[3].rstrip("%")) <= 100.0 for row in rows)
