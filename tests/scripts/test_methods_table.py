"""The README's table of methods is the one that the registry makes."""

import subprocess
import sys
from pathlib import Path

from kdscale.losses import METHODS

ROOT = Path(__file__).parents[2]


def test_the_readme_holds_the_table_as_it_is_made_now() -> None:
    script = ROOT / "scripts" / "methods_table"
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert made.stdout in (ROOT / "README.md").read_text(encoding="utf-8")
    assert made.stdout.count("\n") == len(METHODS) + 2
