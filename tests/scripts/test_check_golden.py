import copy
import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "check_golden"
CORE = ROOT / "tests" / "losses" / "golden_losses.json"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_loader("check_golden", SourceFileLoader("check_golden", str(SCRIPT)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["check_golden"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


class Check:
    """Runs the script's main on a file with the given content."""

    def __init__(
        self,
        script: ModuleType,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.script, self.path, self.monkeypatch, self.capsys = script, path, monkeypatch, capsys

    def __call__(self, content: object) -> tuple[int, list[str], str]:
        text = content if isinstance(content, str) else json.dumps(content)
        self.path.write_text(text)
        self.monkeypatch.setattr(sys, "argv", ["check_golden", str(self.path)])
        code: int = self.script.main()
        captured = self.capsys.readouterr()
        return code, captured.out.splitlines(), captured.err


@pytest.fixture
def check(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Check:
    return Check(script, tmp_path / "golden.json", monkeypatch, capsys)


def core(*ids: str) -> list[dict[str, Any]]:
    cases = json.loads(CORE.read_text())["cases"]
    return [case for case in cases if case["id"] in ids]


def test_as_a_command() -> None:
    run = subprocess.run([sys.executable, SCRIPT, CORE], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "84 passed, 0 failed, 0 skipped\n", "")


def test_other_methods_and_variants_are_skipped_and_listed(check: Check) -> None:
    (case,) = core("kd/T=4")
    unknown = {**case, "method": "newkd"}
    variant = {**core("rsd/logits_kappa=0.1")[0], "variant": "stages 3"}
    code, out, _ = check({"cases": [case, unknown, unknown, variant]})
    assert code == 1
    assert out == [
        "skipped, not in the table: newkd (2), rsd stages 3",
        "1 passed, 0 failed, 3 skipped",
    ]


def test_a_wrong_value_is_printed_with_its_tolerance(check: Check) -> None:
    (case,) = core("kd/T=4")
    good = copy.deepcopy(case)
    case["value"] *= 1 + 1e-7
    code, out, _ = check({"cases": [case, good]})
    assert code == 1
    assert out[0].startswith("kd/T=4: value: wanted 4.90532881452")
    assert "got 4.90532832399" in out[0]
    assert "tolerance 4.9e-09" in out[0]
    assert out[1:] == ["1 passed, 1 failed, 0 skipped"]


@pytest.mark.parametrize(
    ("field", "wrong", "line"),
    [
        ("sum", 1e-7, "grad.W1.sum: wanted 1e-07"),
        ("abs_sum", 1.0, "grad.W1.abs_sum: wanted 1,"),
        ("l2", 28.2205, "grad.W1.l2: wanted 28.2205,"),
        ("first5", [-0.7263559004552085, 0, 0, 0, 0], "grad.W1[1]: wanted 0,"),
        ("argmax_abs_index", 5, "grad.W1: largest at index 5 wanted, got 126"),
        ("l2", float("nan"), "grad.W1.l2: wanted nan,"),
    ],
)
def test_a_wrong_gradient_is_printed(check: Check, field: str, wrong: object, line: str) -> None:
    (case,) = core("rsd/AAD_projector_D_s=8_D_t=10_expansion=2_kappa=0.01")
    case["grad"]["W1"][field] = wrong
    code, out, _ = check({"cases": [case]})
    assert code == 1
    assert any(line in text for text in out)
    assert out[-1] == "0 passed, 1 failed, 0 skipped"


def test_unknown_parameters_and_impossible_ones_fail(check: Check) -> None:
    extra, impossible = core("kd/T=4", "ldrld/local_d=3_T=4")[::-1]
    extra["params"]["margin"] = 1
    impossible["params"]["d"] = 12
    code, out, _ = check({"cases": [extra, impossible]})
    assert code == 1
    assert out[0] == "kd/T=4: params must be T, but got T margin"
    assert "raised ValueError: 2 <= depth <= classes - 2 must hold, but got depth=12" in out[1]
    assert out[-1] == "0 passed, 2 failed, 0 skipped"


def with_formula(formula: str) -> dict[str, Any]:
    (case,) = core("kd/T=4")
    case["inputs"]["z_s"]["formula"] = formula
    return {"cases": [case]}


def without(key: str) -> dict[str, Any]:
    (case,) = core("kd/T=4")
    del case[key]
    return {"cases": [case]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON"),
        ("[]", 'list "cases"'),
        ({"cases": []}, "not empty"),
        ({"cases": [1]}, "cases[0] must be an object"),
        (without("params"), '"params" must be there and be dict'),
        (without("value"), '(kd/T=4): "value" must be there'),
        (with_formula("__import__('os').getcwd()"), "formula must not hold"),
        (with_formula("np.load('x')"), 'formula must not hold "np.load('),
        (with_formula("3*q"), 'formula must not hold "q"'),
        (with_formula("3*"), "bad input"),
    ],
)
def test_a_bad_file_exits_2_with_one_line(check: Check, content: object, message: str) -> None:
    code, out, err = check(content)
    assert code == 2
    assert out == []
    assert err.count("\n") == 1
    assert message in err


def test_a_missing_file_exits_2(check: Check, script: ModuleType) -> None:
    check.monkeypatch.setattr(sys, "argv", ["check_golden", "/nowhere/golden.json"])
    assert script.main() == 2
    assert "No such file" in check.capsys.readouterr().err
