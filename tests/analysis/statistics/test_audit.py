from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdscale.analysis.statistics import Audit, Cell, PublishedTable, audit, read_tables


def curve(
    scores: list[float], n: int = 1, std: float | None = None, name: str = "t"
) -> PublishedTable:
    cells = tuple(Cell((str(x),), score, n, std) for x, score in enumerate(scores))
    return PublishedTable(name, ("alpha",), cells)


def p_of(found: Audit, name: str) -> float:
    return next(test.p for test in found.tests if test.name == name)


def test_ldrld_supports_nothing_more_than_noise() -> None:
    found = audit(read_tables("ldrld-sensitivity"))
    spread, smoothness = found.tests
    assert len(found.curves) == 8
    assert spread.statistic == pytest.approx(1.87, abs=0.005)
    assert spread.expected == pytest.approx(1.83, abs=0.01)
    assert spread.p == pytest.approx(0.56, abs=0.01)
    assert smoothness.p == pytest.approx(0.33, abs=0.01)
    assert found.verdict == "not distinguishable from noise"
    assert found.supported == ()


def test_the_depth_of_ldrld_neither() -> None:
    assert audit(read_tables("ldrld-depth"), noise=0.25).verdict == "not distinguishable from noise"


def test_a_real_effect_is_told() -> None:
    x = np.linspace(-1, 1, 10)
    scores = (70 - 2 * x**2 + np.random.default_rng(0).normal(0, 0.1, 10)).tolist()
    found = audit([curve(scores)], noise=0.1)
    assert {test.name for test in found.supported} == {"smoothness", "noise"}
    assert "the hyperparameter has an effect" in found.verdict
    assert "repeated runs" in found.verdict


def test_one_cell_far_above_the_rest_stands_out() -> None:
    found = audit([curve([70.0, 70.2, 70.1, 75.0, 70.3, 69.9, 70.0, 70.2, 70.1])])
    assert found.verdict == "the best cells stand out from the rest more than noise does"
    assert found.curves[0].best == "3"
    assert found.curves[0].chance_best is not None


def test_false_claims_stay_under_the_rate() -> None:
    rng = np.random.default_rng(0)
    claims = [
        audit([curve(rng.normal(70, 0.3, 9).tolist())], noise=0.3, rng=index).supported != ()
        for index in range(200)
    ]
    assert np.mean(claims) <= 0.09


def test_known_deviations_give_the_analysis_of_variance_of_scipy() -> None:
    runs = np.random.default_rng(1).normal([[70.0], [70.5], [71.0], [70.2]], 0.3, (4, 5))
    cells = tuple(
        Cell((str(x),), float(row.mean()), 5, float(row.std(ddof=1))) for x, row in enumerate(runs)
    )
    found = audit([PublishedTable("t", ("alpha",), cells)])
    expected = stats.f_oneway(*runs)
    (noise,) = (test for test in found.tests if test.name == "noise")
    assert noise.statistic == pytest.approx(expected.statistic)
    assert noise.p == pytest.approx(expected.pvalue)
    assert found.noise_source == "std"
    assert found.noise == pytest.approx(np.sqrt(runs.var(axis=1, ddof=1).mean()))


def test_chance_and_runs_follow_the_noise() -> None:
    scores = [70.0, 71.0, 70.2, 70.1, 69.9]
    sure, unsure = (audit([curve(scores)], noise=noise).curves[0] for noise in (0.05, 2.0))
    assert sure.chance_best == pytest.approx(1.0, abs=0.01)
    assert unsure.chance_best == pytest.approx(0.2, abs=0.01)
    assert sure.seeds is not None
    assert unsure.seeds is not None
    assert sure.seeds < 5 < unsure.seeds


def test_lower_may_be_better() -> None:
    scores = [1.0, 0.4, 1.1, 1.05, 0.98]
    lower = audit([curve(scores)], goal="minimize")
    higher = audit([curve([-score for score in scores])])
    assert lower.curves[0].best == "1"
    assert p_of(lower, "spread") == pytest.approx(p_of(higher, "spread"))


def test_equal_cells_and_no_curves() -> None:
    found = audit([curve([70.0] * 4)])
    assert (found.tests, found.verdict) == ((), "not distinguishable from noise")
    cells = tuple(Cell((str(x), str(x)), 70.0 + x) for x in range(4))
    found = audit([PublishedTable("t", ("alpha", "beta"), cells)])
    assert (found.curves, found.noise) == ((), None)


@settings(deadline=None, max_examples=40)
@given(
    scores=st.lists(st.integers(6000, 8000).map(lambda k: k / 100), min_size=4, max_size=9),
    shift=st.integers(-20, 20),
    data=st.data(),
)
def test_order_of_rows_and_unit_do_not_matter(
    scores: list[float], shift: int, data: st.DataObject
) -> None:
    table = curve(scores)
    shuffled = replace(table, cells=tuple(data.draw(st.permutations(table.cells))))
    before = audit([table])
    assert audit([shuffled]).tests == before.tests
    moved = audit([curve([2 * score + shift for score in scores])])
    assert [test.p for test in moved.tests] == pytest.approx([test.p for test in before.tests])
    monotone = replace(
        table,
        cells=tuple(
            replace(cell, parameters=(str(np.exp(int(cell.parameters[0]))),))
            for cell in table.cells
        ),
    )
    assert audit([monotone]).tests == before.tests
