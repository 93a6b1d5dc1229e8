"""Values and gradients of the authors' own code, float64."""

from pathlib import Path
from typing import Any

import pytest
from golden import TABLE
from golden.check import disagreements, find_entry, read_cases

from kdscale.losses import METHODS

CASES = read_cases(Path(__file__).parent / "golden_losses.json")


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_value_and_gradients_are_the_official_ones(case: dict[str, Any]) -> None:
    entry = find_entry(case)
    assert entry is not None
    assert disagreements(case, entry) == []


def test_the_file_holds_all_cases_and_the_table_all_names() -> None:
    assert len(CASES) == 84
    assert {case["method"] for case in CASES} == {entry.golden for entry in TABLE}
    assert len({entry.golden for entry in TABLE}) == 47
    assert {entry.method for entry in TABLE} <= set(METHODS)
