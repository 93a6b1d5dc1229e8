"""Values and gradients of the authors' own code, float64."""

import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kdscale.losses import METHODS

ROOT = Path(__file__).parents[2]
CASES = json.loads((Path(__file__).parent / "golden_core.json").read_text())["cases"]


@pytest.fixture(scope="module")
def check_golden() -> ModuleType:
    path = str(ROOT / "scripts" / "check_golden")
    loader = SourceFileLoader("check_golden", path)
    spec = importlib.util.spec_from_loader("check_golden", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_golden"] = module  # its dataclass looks itself up there
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_value_and_gradients_are_the_official_ones(
    case: dict[str, Any], check_golden: ModuleType
) -> None:
    entry = check_golden.find_entry(case)
    assert entry is not None
    assert check_golden.disagreements(case, entry) == []


def test_every_method_has_golden_cases() -> None:
    assert {case["method"] for case in CASES} == set(METHODS)
