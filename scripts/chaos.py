#!/usr/bin/env python3
"""Kills parts of a cluster at random while a study runs on it, and compares what comes out.

    scripts/chaos.py --seed 1 --kills 20
    scripts/chaos.py --seed 2 --kills 10 --workers 2 --kinds node,cut

Runs one small study twice on scripts/testbed: left alone, and while processes are killed with
SIGKILL, links are cut, the disk is filled and last writes are torn. An operator is played who knows
nothing of kdscale but to start again what does not run: Ray on a node, and `kdscale sweep`. At the
end both must have the same trials, metrics and student weights to the last bit, no trial twice, and
no kill may have cost any trial more than the epoch that it was in.

Needs Linux and root, as the testbed does. Exit code: 0 all equal, 1 not, 2 it cannot run here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
venv_python = ROOT / ".venv" / "bin" / "python"
if venv_python.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(venv_python, [str(venv_python), *sys.argv])
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from chaos_lib.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(__doc__, sys.argv[1:]))
