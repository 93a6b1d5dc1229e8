"""SIGKILL of a sweep with a Ray of its own, and the sweep that goes on at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kdscale.search import Study, open_ledger
from kdscale.search._attempts import losses
from kdscale.search._process import Process
from kdscale.search._remote_lease import LEASES

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


def stop_ray(leader: int) -> None:
    """Freezes a Ray's own processes: its workers do not notice that their driver dies."""
    for number in session(leader):
        with suppress(OSError):
            name = (Path("/proc") / str(number) / "comm").read_text().strip()
            if name in ("raylet", "gcs_server"):
                os.kill(number, signal.SIGSTOP)


class Witness:
    """Watches who trains what, from the files of workers that are alive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / LEASES
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.writers: dict[str, set[tuple[int, int]]] = {}
        self.most_at_once = 0

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            now: Counter[str] = Counter()
            for path in self._folder.glob("*.json"):
                with suppress(OSError, ValueError):
                    said = json.loads(path.read_text())
                    process = Process(**said["process"])
                    if process.has_ended() is False:
                        now.update(said["trials"])
                        for trial in said["trials"]:
                            writer = said["fence"], process.pid
                            self.writers.setdefault(trial, set()).add(writer)
            self.most_at_once = max([self.most_at_once, *now.values()])


def test_a_sweep_killed_halfway_goes_on_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """Its workers go on without it, for as long as the next sweep lets them."""
    study = killed_study(tmp_path)
    with Witness(study.folder) as witness, driver(study, tmp_path) as first:
        assert first.stdout is not None
        for line in first.stdout:
            name, state, epochs = f"{line} 0 0".split()[:3]
            if name.startswith("c") and state == "running" and int(epochs) >= 3:
                break
        stop_ray(first.pid)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
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
    for name in ("c000-s0", "c001-s0"):
        lost, last = ledger.trial(name).attempts
        assert (lost.reason, last.reason) == ("driver lost", ledger.trial(name).state)
        assert lost.start <= lost.end <= last.start
        assert lost.epoch == last.after_epoch >= 3
        assert len(last.nodes) == 1
        assert {fence for fence, _ in witness.writers[name]} == {1, 2}
    assert witness.most_at_once == 1
    assert losses(ledger.trials) == "2 attempt(s) were lost: 2 driver lost"
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
    attempts = [attempt for trial in ledger.trials for attempt in trial.attempts]
    assert {attempt.reason for attempt in attempts} == {"user stop"}
