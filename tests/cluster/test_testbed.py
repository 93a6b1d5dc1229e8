"""Sweeps over two hosts: the same bits as on one, through a killed node and a cut link."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chaos_lib.compare import differences
from testbed_lib import Testbed
from testbed_lib.hosts import running
from testbed_lib.testbed import TestbedError

from kdscale.search import load_study, open_ledger

from .sweeps import (
    EPOCHS,
    SCRIPTS,
    epochs,
    left_alone,
    on_head,
    study_file,
    sweeping,
    wait_for,
    workers,
)

# They may have to wait for the other files of this folder.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCRIPT = SCRIPTS / "testbed"
DASHBOARD = "http://127.0.0.1:8265"


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with two workers on one host, complete; trained without Ray."""
    path = study_file(tmp_path_factory.mktemp("cluster") / "one", workers=2, cohort=3)
    left_alone(path)
    return path


def test_a_cohort_over_two_hosts_has_the_bits_of_one_on_one_host(
    testbed: Testbed, one_host: Path, tmp_path: Path
) -> None:
    """Hosts' names resolve to loopback here, and each host has a teacher cache of its own."""
    cache = Path("/tmp/ray/teachers")
    path = study_file(tmp_path / "two", cache, workers=2, cohort=3, placement="spread")
    with sweeping(testbed, path) as sweep:
        sweep.wait_for(lambda: all(len(workers(name)) == 1 for name in running()))
        sweep.wait()
    assert not differences(one_host, path)
    for name in running():
        kept = testbed.folder / name / "ray" / "teachers"
        assert sum(file.stat().st_size for file in kept.rglob("*") if file.is_file()) > 10_000


def test_a_killed_node_and_a_cut_link_change_nothing(
    testbed: Testbed, one_host: Path, tmp_path: Path
) -> None:
    """Two lanes over both nodes: one is killed as they start and train, and cut as they start."""
    path = study_file(tmp_path / "broken", workers=2, cohort=2, placement="spread")
    with sweeping(testbed, path) as sweep:
        for ready in (lambda: workers("node2"), lambda: epochs(path) >= 3):
            sweep.wait_for(ready)
            testbed.kill("node2")
            testbed.mend("node2")
        sweep.wait_for(lambda: workers("node2"))
        testbed.cut("node2")
        before = epochs(path)
        sweep.wait_for(lambda: epochs(path) > before)
        testbed.mend("node2")
        sweep.wait()
    assert not differences(one_host, path)
    ledger = open_ledger(load_study(path), create=False)
    trials = (*ledger.trials, *ledger.controls)
    reasons = {attempt.reason for trial in trials for attempt in trial.attempts}
    assert reasons == {"node lost", "done"}


def test_ray_jobs_run_a_study_on_both_nodes_and_stop_it(testbed: Testbed, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    many = 3 * EPOCHS  # the command that stops it takes seconds
    path = study_file(folder, epochs=many, cohort=1)
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
    assert 4 <= done < 4 * many

    # As plain Ray users type it: it waits for the end, and prints the logs.
    words = ("ray", "job", "submit", "--working-dir", ".", "--", "kdscale", "sweep", path.name)
    again = on_head(testbed, *words, folder=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    ledger = open_ledger(load_study(path), create=False)
    assert [trial.state for trial in (*ledger.trials, *ledger.controls)] == ["done"] * 4
    assert epochs(path) == 4 * many
    here = study_file(tmp_path / "here", epochs=many, cohort=1)
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
