"""Sweeps on a testbed, and the same left alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed_lib import Testbed
from testbed_lib.hosts import processes

from kdscale.errors import UserError
from kdscale.search import load_study, open_ledger
from kdscale.search._yaml import dump_yaml

PROGRAMS = Path(sys.executable).parent
SCRIPTS = Path(__file__).parents[2] / "scripts"
NETWORK: dict[str, Any] = {"model": "resnet8", "args": {"width": 4}}
EPOCHS = 20
DATA: dict[str, Any] = {
    "name": "spread",
    "task": {
        "data": {"name": "icons100", "train_images": 200},
        "teacher": NETWORK | {"epochs": 1, "inference": "folded"},
        "student": NETWORK,
        "recipe": {"lr": 0.05, "batch_size": 20},
    },
    "objective": {"methods": [{"method": "ldrld", "beta": 1, "temperature": 2}]},
    "parameters": {"alpha": {"min": 2, "max": 14}, "depth": {"values": [3, 5]}},
    "search": {"method": "random"},
    "budget": {"trials": 3, "epochs": EPOCHS},
    "tracking": {"mlflow": False},
}


def study_file(
    folder: Path,
    cache: Path | None = None,
    seeds: int = 1,
    epochs: int = EPOCHS,
    **resources: Any,
) -> Path:
    """Returns a study file whose study lies beside it."""
    folder.mkdir()
    data = DATA | {"seeds": seeds, "resources": resources, "storage": {"folder": str(folder)}}
    data["budget"] = DATA["budget"] | {"epochs": epochs}
    if cache is not None:
        teacher = DATA["task"]["teacher"] | {"cache": {"folder": str(cache)}}
        data["task"] = DATA["task"] | {"teacher": teacher}
    path = folder / "spread.yaml"
    path.write_text(dump_yaml(data))
    return path


def on_head(testbed: Testbed, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command on the head to its end."""
    return subprocess.run(
        testbed.command([str(PROGRAMS / words[0]), *words[1:]], folder=folder),
        env=testbed.environment(),
        capture_output=True,
        text=True,
    )


class Sweep:
    """A sweep that runs meanwhile on the head."""

    def __init__(self, testbed: Testbed, path: Path) -> None:
        self.log = path.with_suffix(".log")
        words = [str(PROGRAMS / "kdscale"), "sweep", str(path)]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                testbed.command(words, folder=path.parent),
                env=testbed.environment(),
                stdout=output,
                stderr=output,
            )

    def wait_for(self, true: Callable[[], Any]) -> None:
        """Returns as soon as something is true, which it must be before the sweep ends."""
        while not true():
            assert self.process.poll() is None
            time.sleep(0.1)

    def wait(self) -> str:
        """Returns what the sweep has said when it has come to its end."""
        assert self.process.wait() == 0
        return self.log.read_text()


@contextmanager
def sweeping(testbed: Testbed, path: Path) -> Iterator[Sweep]:
    """Runs a sweep meanwhile, and shows what it said if the test fails."""
    sweep = Sweep(testbed, path)
    try:
        yield sweep
    except BaseException:
        print(sweep.log.read_text())
        raise
    finally:
        sweep.process.kill()
        sweep.process.wait()


def wait_for(true: Callable[[], Any]) -> None:
    """Returns as soon as something is true; the test's time limit ends a wait in vain."""
    while not true():
        time.sleep(0.1)


def epochs(path: Path) -> int:
    """Returns how many epochs a study has recorded."""
    study = load_study(path)
    if not (study.folder / "study.db").exists():
        return 0
    try:
        ledger = open_ledger(study, create=False)
    except UserError:  # the sweep is just making it
        return 0
    return sum(len(trial.history) for trial in (*ledger.trials, *ledger.controls))


def workers(name: str) -> list[str]:
    """Returns what trains on a node."""
    found = processes(name).values()
    return [
        words[0] for words in found if re.match(r"ray::(RayTrainWorker|ImplicitFunc)", words[0])
    ]


def left_alone(path: Path) -> None:
    """Trains the study of a file without Ray, in a process of its own."""
    python_path = os.pathsep.join(map(str, (SCRIPTS, SCRIPTS.parent)))
    words = [sys.executable, "-m", "chaos_lib.alone", str(path)]
    subprocess.run(words, check=True, env=os.environ | {"PYTHONPATH": python_path})
