from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.analysis.statistics import Result, Results, one_at_a_time
from kdscale.records import Value

from .tables import mapped

BASELINE: dict[str, Value] = {"alpha": 9.0, "beta": 1.0, "depth": 7}


def results(points: list[dict[str, Value]], names: tuple[str, ...] = tuple(BASELINE)) -> Results:
    rows = tuple(Result(number, 0, point, 70.0 + number) for number, point in enumerate(points))
    return Results(rows, "maximize", names)


def design() -> Results:
    along = [{"alpha": 8.0}, {"alpha": 10.0}, {"beta": 2.0}, {"depth": 9}, {"depth": 3}]
    return results([BASELINE, *(BASELINE | change for change in along)])


def test_a_design_gives_its_lines_through_the_baseline() -> None:
    lines = {line.parameter: line for line in one_at_a_time(design())}
    assert {line.baseline for line in lines.values()} == {0}
    assert lines["alpha"].values == (8.0, 9.0, 10.0)
    assert lines["alpha"].configurations == (1, 0, 2)
    assert lines["beta"].configurations == (0, 3)
    assert lines["depth"].values == (3, 7, 9)


def test_a_grid_is_cut_through_its_best() -> None:
    grid = [{"alpha": a, "beta": b} for a in (1.0, 2.0, 3.0) for b in (1.0, 2.0)]
    lines = one_at_a_time(results([dict(point) for point in grid], ("alpha", "beta")))
    assert [line.baseline for line in lines] == [5, 5]
    assert lines[0].configurations == (1, 3, 5)


def test_random_points_and_missing_hyperparameters_give_nothing() -> None:
    assert one_at_a_time(results([{"alpha": 0.1, "beta": 0.2}, {"alpha": 0.3, "beta": 0.4}])) == ()
    assert one_at_a_time(results([{"alpha": 1.0}, {}], ("alpha",))) == ()
    assert one_at_a_time(Results((), "maximize", ("alpha",))) == ()


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(6)))
def test_order_of_trials_does_not_matter(order: list[int]) -> None:
    rows = design().rows
    shuffled = replace(design(), rows=tuple(rows[index] for index in order))
    assert one_at_a_time(shuffled) == one_at_a_time(design())


def test_monotone_relabelling_changes_values_alone() -> None:
    def cubed(row: Result) -> Result:
        changed = {name: float(value) ** 3 for name, value in row.parameters.items()}
        return replace(row, parameters=changed)

    before, after = one_at_a_time(design()), one_at_a_time(mapped(design(), cubed))
    assert [line.configurations for line in after] == [line.configurations for line in before]
    assert after[0].values == (512.0, 729.0, 1000.0)
