"""`kdscale submit --to slurm`, for real: sbatch, srun, `ray symmetric-run`, and the sweep."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from sweeps import study_file

from kdscale.search import load_study, open_ledger

from .slurm_box import Box, slurm_box, why_not_here

pytestmark = pytest.mark.slow

KDSCALE = Path(sys.executable).parent / "kdscale"


@pytest.fixture
def box() -> Iterator[Box]:
    if why := why_not_here():
        pytest.skip(why)
    folder = Path(mkdtemp(prefix="box-"))  # munge wants a folder whose parents only root can write
    folder.chmod(0o755)
    try:
        with slurm_box(folder, cpus=2) as running:
            yield running
    finally:
        shutil.rmtree(folder)


def test_a_study_runs_on_slurm_and_leaves_nothing_behind(box: Box, tmp_path: Path) -> None:
    path = study_file(
        tmp_path,
        budget={"trials": 2, "epochs": 1},
        seeds=1,
        undistilled=False,
        storage={"folder": str(tmp_path / "studies")},
    )

    def inside(*words: str) -> str:
        command = box.command(*words, folder=tmp_path)
        environment = {**box.environment, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    out = inside(str(KDSCALE), "submit", str(path), "--to", "slurm", "--time", "10")
    assert out.startswith("submitted as 1 to Slurm\n")
    while inside("squeue", "--noheader"):  # the test's time limit ends a wait in vain
        time.sleep(1)
    log = (tmp_path / "kdscale-tiny-1.log").read_text()
    assert "JobState=COMPLETED" in inside("scontrol", "show", "job", "1"), log
    assert "tiny: 2 configurations × 1 seeds = 2 trials; 1 cohort(s) at once\n" in log
    ledger = open_ledger(load_study(path), create=False)
    assert [trial.state for trial in ledger.trials] == ["done", "done"]
    assert (tmp_path / "studies/tiny/report.html").exists()
    while "raylet" in inside("ps", "-e", "-o", "comm"):  # killed ones take a moment to go
        time.sleep(0.5)
