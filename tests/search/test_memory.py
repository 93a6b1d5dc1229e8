"""A cohort that does not fit in memory trains in smaller ones, and nothing else changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .tight import wide_study

pytestmark = pytest.mark.slow

PLENTY, LITTLE = 4000, 50


def swept_with(mebibytes: int, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    path = folder / "study.yaml"
    path.write_text(wide_study(folder).to_yaml())
    ran = subprocess.run(
        [sys.executable, "-m", "search.tight", str(path), str(mebibytes)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def test_out_of_memory_is_no_trials_failure_and_changes_no_value(tmp_path: Path) -> None:
    wanted = swept_with(PLENTY, tmp_path / "plenty")
    tight = swept_with(LITTLE, tmp_path / "little")
    assert wanted["sizes"] == [8]
    assert tight["sizes"][:2] == [8, 4]
    assert {end[0] for end in tight["ends"].values()} == {"done", "pruned"}
    for name, (state, reason, _, *numbers) in wanted["ends"].items():
        assert tight["ends"][name][:2] == [state, reason]
        assert tight["ends"][name][3:] == numbers
