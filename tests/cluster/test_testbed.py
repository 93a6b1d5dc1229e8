"""Sweeps over two hosts: the same bits as on one, through a killed node and a cut link."""

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

import pytest
from chaos_lib.compare import differences
from testbed_lib import Testbed
from testbed_lib.hosts import processes, running
from testbed_lib.testbed import TestbedError

from kdscale.errors import UserError
from kdscale.search import load_study, open_ledger
from kdscale.search._yaml import dump_yaml

# They may have to wait for the other files of this folder.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROGRAMS = Path(sys.executable).parent
SCRIPT = Path(__file__).parents[2] / "scripts" / "testbed"
DASHBOARD = "http://127.0.0.1:8265"
NETWORK: dict[str, Any] = {"model": "resnet8", "args": {"width": 4}}
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
    "budget": {"trials": 3, "epochs": 10},
    "tracking": {"mlflow": False},
}


def study_file(folder: Path, cache: Path | None = None, **resources: Any) -> Path:
    """Returns a study file whose study lies beside it."""
    folder.mkdir()
    data = DATA | {"resources": resources, "storage": {"folder": str(folder)}}
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


@contextmanager
def sweeping(testbed: Testbed, path: Path) -> Iterator[Callable[[], str]]:
    """Runs a sweep meanwhile, and gives what waits for its end and returns what it printed."""
    log = path.with_suffix(".log")
    command = testbed.command([str(PROGRAMS / "kdscale"), "sweep", str(path)], folder=path.parent)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=testbed.environment(), stdout=output, stderr=output, text=True
        )

    def ended() -> str:
        process.wait()
        assert process.returncode == 0, log.read_text()
        return log.read_text()

    try:
        yield ended
    finally:
        process.kill()
        process.wait()


def wait_for(true: Callable[[], Any]) -> Any:
    """Returns what is true, as soon as it is; the test's time limit ends a wait in vain."""
    while not (found := true()):
        time.sleep(0.1)
    return found


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


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with two workers on one host, complete; trained without Ray."""
    path = study_file(tmp_path_factory.mktemp("cluster") / "one", workers=2, cohort=3)
    left_alone(path)
    return path


def left_alone(path: Path) -> None:
    """Trains the study of a file without Ray, in a process of its own."""
    python_path = os.pathsep.join(map(str, (SCRIPT.parent, SCRIPT.parents[1])))
    words = [sys.executable, "-m", "chaos_lib.alone", str(path)]
    subprocess.run(words, check=True, env=os.environ | {"PYTHONPATH": python_path})


def test_a_cohort_over_two_hosts_has_the_bits_of_one_on_one_host(
    testbed: Testbed, one_host: Path, tmp_path: Path
) -> None:
    """Hosts' names resolve to loopback here, and each host has a teacher cache of its own."""
    cache = Path("/tmp/ray/teachers")
    path = study_file(tmp_path / "two", cache, workers=2, cohort=3, placement="spread")
    with sweeping(testbed, path) as ended:
        wait_for(lambda: all(len(workers(name)) == 1 for name in running()))
        ended()
    assert not differences(one_host, path)
    for name in running():
        kept = testbed.folder / name / "ray" / "teachers"
        assert sum(file.stat().st_size for file in kept.rglob("*") if file.is_file()) > 10_000


def test_a_killed_node_and_a_cut_link_change_nothing(
    testbed: Testbed, one_host: Path, tmp_path: Path
) -> None:
    path = study_file(tmp_path / "broken", workers=2, cohort=2, placement="spread")
    with sweeping(testbed, path) as ended:
        wait_for(lambda: epochs(path) >= 3)
        testbed.kill("node2")
        before = epochs(path)
        testbed.mend("node2")
        wait_for(lambda: epochs(path) > before)
        testbed.cut("node2")
        before = epochs(path)
        wait_for(lambda: epochs(path) > before)
        testbed.mend("node2")
        ended()
    assert not differences(one_host, path)


def test_ray_jobs_run_a_study_on_both_nodes_and_stop_it(testbed: Testbed, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    path = study_file(folder, cohort=1)
    testbed.wait_joined(["node1", "node2"])
    submit = ("submit", path.name, "--to", "ray", "--address", DASHBOARD)
    submitted = on_head(testbed, "kdscale", *submit, folder=folder)
    assert submitted.returncode == 0, submitted.stderr
    number = submitted.stdout.split()[2]
    wait_for(lambda: all(workers(name) for name in running()))
    wait_for(lambda: epochs(path) >= 4)
    stopped = on_head(testbed, "ray", "job", "stop", number, folder=folder)
    assert stopped.returncode == 0, stopped.stderr
    logs = on_head(testbed, "ray", "job", "logs", number, folder=folder).stdout
    assert "trials ended" in logs
    done = epochs(path)
    assert 4 <= done < 4 * 10

    # As plain Ray users type it: it waits for the end, and prints the logs.
    words = ("ray", "job", "submit", "--working-dir", ".", "--", "kdscale", "sweep", path.name)
    again = on_head(testbed, *words, folder=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    ledger = open_ledger(load_study(path), create=False)
    assert [trial.state for trial in (*ledger.trials, *ledger.controls)] == ["done"] * 4
    assert epochs(path) == 4 * 10
    here = study_file(tmp_path / "here", cohort=1)
    left_alone(here)
    assert not differences(here, path)


# The command itself


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)


def test_status_shows_what_is_broken_and_mend_mends_it(testbed: Testbed) -> None:
    assert command("kill", "node2").stdout == "node2: killed\n"
    rows = [line.split() for line in command("status").stdout.splitlines()]
    assert rows[1] == ["node1", "10.77.0.1", "up", "up", "up", "yes"]
    assert rows[2][:5] == ["node2", "10.77.0.2", "down", "down", "down"]
    assert command("mend", "node2").returncode == 0
    testbed.wait_joined(["node1", "node2"])


def test_run_runs_on_the_node_and_gives_its_exit_code(testbed: Testbed) -> None:
    ran = command("run", "--node", "node2", "--", "bash", "-c", "hostname; exit 7")
    assert (ran.stdout, ran.returncode) == ("node2\n", 7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("kill", "node3"), "NODE: must be one of node1, node2, but got node3"),
        (("up", "2"), "there must be no testbed yet, but node1, node2 are up"),
        (("up", "none"), "argument N: must be 1 to 99, but got none"),
    ],
)
def test_what_cannot_be_done_is_refused(
    testbed: Testbed, words: tuple[str, ...], message: str
) -> None:
    refused = command(*words)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


def test_down_leaves_nothing(testbed: Testbed) -> None:
    assert command("down").returncode == 0
    assert not running()
    assert not testbed.folder.exists()
    assert "kdscale-testbed" not in Path("/proc/mounts").read_text()
    with pytest.raises(TestbedError, match="there is none"):
        testbed.status()


def test_without_root_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TestbedError, match="needs root"):
        Testbed().up(2)
