from __future__ import annotations

import numpy as np
import pytest

from kdscale.analysis.statistics import Result, Results, results_of

from ..studies import usual
from .tables import table


def test_of_a_study() -> None:
    results = results_of(usual())
    assert [(row.configuration, row.seed, row.complete) for row in results.rows] == [
        (0, 0, True),
        (0, 1, True),
        (1, 0, True),
        (1, 1, True),
        (2, 0, False),
        (2, 1, True),
        (3, 1, False),
    ]
    assert results.names == ("alpha", "depth")
    assert results.parameters[2] == {"alpha": 2.0, "depth": 7}
    assert results.rows[0].curve == (17.5, 35.0, 52.5, 70.0)
    assert results.rows[0].cost_seconds == 6.0


def test_layout_has_only_complete_trials() -> None:
    layout = results_of(usual()).layout
    assert layout.configurations == (0, 1, 2)
    assert layout.seeds == (0, 1)
    np.testing.assert_array_equal(layout.values, [[70.0, 71.0], [72.0, 72.5], [np.nan, 75.0]])
    assert layout.counts.tolist() == [2, 2, 1]
    assert layout.means.tolist() == [70.5, 72.25, 75.0]
    with pytest.raises(ValueError, match="configuration 3 has no complete trial"):
        layout.index(3)


def test_an_empty_table_has_an_empty_layout() -> None:
    layout = Results((), "maximize").layout
    assert layout.means.tolist() == []


def test_what_is_no_table_is_refused() -> None:
    row = Result(0, 1, {}, 70.0)
    with pytest.raises(ValueError, match="configuration 0 has seed 1 twice"):
        Results((row, row), "maximize")
    with pytest.raises(ValueError, match="values must be finite"):
        table([[float("nan")]])
