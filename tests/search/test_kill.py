"""SIGKILL of a sweep with a Ray of its own, and the sweep that goes on at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kdscale.search import Study, open_ledger

from .here import numbers, swept_here
from .studies import make_study

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("driver.py")


def killed_study(folder: Path) -> Study:
    network: dict[str, Any] = {"model": "resnet8", "args": {"width": 4}}
    return make_study(
        name="killed",
        task={
            "data": {"name": "icons100", "train_images": 200},
            "teacher": network | {"epochs": 1, "inference": "folded"},
            "student": network,
            "recipe": {"lr": 0.1, "batch_size": 50},
        },
        search={"method": "tpe", "generation": 2, "baseline": {"alpha": 9}},
        rungs={"eta": 2, "first": 8},
        budget={"trials": 4, "epochs": 12},
        resources={"cohort": 2},
        storage={"folder": str(folder)},
    )


@contextmanager
def driver(study: Study, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Gives a sweep in a session of its own, of which no process is left in the end."""
    path = folder / "study.yaml"
    path.write_text(study.to_yaml())
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    with (folder / "errors.txt").open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), str(path)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()


def session(leader: int) -> list[int]:
    """Returns the processes of a session: a Ray that a driver has started stays in its own."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(ValueError, OSError):
            ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if os.getsid(int(entry.name)) == leader and not ended:
                found.append(int(entry.name))
    return found


def test_a_sweep_killed_halfway_goes_on_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    study = killed_study(tmp_path)
    with driver(study, tmp_path) as first:
        assert first.stdout is not None
        for line in first.stdout:
            name, state, epochs = f"{line} 0 0".split()[:3]
            if name.startswith("c") and state == "running" and int(epochs) >= 3:
                break
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        # Ray's workers may outlive the driver by seconds. The next sweep does not wait for them.
        with driver(study, tmp_path) as second:
            told = second.communicate(timeout=240)[0].splitlines()
    assert told[-1] == "complete", (tmp_path / "errors.txt").read_text()
    assert "teacher running" not in told  # it was trained, and is not trained again

    ledger = open_ledger(study, create=False)
    assert [trial.name for trial in ledger.trials] == ["c000-s0", "c001-s0", "c002-s0", "c003-s0"]
    assert [trial.name for trial in ledger.controls] == ["undistilled-s0"]
    assert Counter(trial.state for trial in ledger.trials) == {"done": 2, "pruned": 2}
    attempts = {trial.name: trial.attempt for trial in ledger.trials}
    assert attempts == {"c000-s0": 2, "c001-s0": 2, "c002-s0": 1, "c003-s0": 1}
    # No epoch that the first sweep has recorded was trained again.
    assert "c000-s0 running 1" not in told
    assert numbers(ledger) == numbers(swept_here(killed_study(tmp_path / "here")))


def test_ctrl_c_leaves_no_process_of_a_lane_behind(tmp_path: Path) -> None:
    """A terminal sends the signal to the whole group; Ray's processes are in the same session."""
    study = killed_study(tmp_path)
    resources = study.resources.model_copy(update={"workers": 2})
    study = study.model_copy(update={"resources": resources})
    with driver(study, tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            name, state, epochs = f"{line} 0 0".split()[:3]
            if name.startswith("c") and state == "running" and int(epochs) >= 1:
                break
        os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=240)[0]
        assert "complete" not in told
        while session(process.pid):  # the test's time limit ends a wait in vain
            time.sleep(0.2)
    ledger = open_ledger(study, create=False)
    assert any(trial.history for trial in ledger.trials)
