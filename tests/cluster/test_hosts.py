"""Hosts without Ray: their network and their processes."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_lib import hosts
from testbed_lib.hosts import TestbedError

# They may have to wait for the other files of this folder.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two hosts; gives the folder of their files."""
    if why := hosts.why_not_here():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("hosts")
    hosts.kill_all()
    hosts.start_switch()
    for name in ("node1", "node2"):
        hosts.start(name, folder / name)
    yield folder
    hosts.kill_all()


def on(name: str, *words: str) -> str:
    ran = subprocess.run(hosts.inside(name, words, Path("/")), capture_output=True, text=True)
    return ran.stdout


def reaches(name: str, other: str) -> bool:
    """Returns whether a host gets an answer of another: that nobody listens there."""
    words = ["timeout", "2", "bash", "-c", f"echo > /dev/tcp/{hosts.address(other)}/9"]
    ran = subprocess.run(hosts.inside(name, words, Path("/")), capture_output=True, text=True)
    return "refused" in ran.stderr


def test_a_host_has_its_own_name_network_processes_and_folder(two: Path) -> None:
    assert on("node2", "hostname") == "node2\n"
    assert on("node2", "getent", "hosts", "node2").split() == ["127.0.1.1", "node2"]
    assert "10.77.0.2/24" in on("node2", "ip", "address")
    assert len(on("node2", "bash", "-c", "echo /proc/[0-9]*").split()) < 5
    on("node2", "touch", "/tmp/ray/mine")
    assert (two / "node2" / "ray" / "mine").exists()
    assert not Path("/tmp/ray/mine").exists()
    names = [name for _, name in socket.if_nameindex()]
    assert not [name for name in names if name == "lan" or name.startswith("to-node")]


def test_a_cut_link_is_silent_until_it_is_mended(two: Path) -> None:
    assert reaches("node1", "node2")
    hosts.set_link("node2", up=False)
    assert not hosts.link_is_up("node2")
    assert not reaches("node1", "node2")
    hosts.set_link("node2", up=True)
    assert reaches("node1", "node2")


def test_kill_ends_all_processes_of_a_host_and_no_others(two: Path) -> None:
    left = subprocess.Popen(hosts.inside("node1", ["sleep", "60"], Path("/")))
    gone = subprocess.Popen(hosts.inside("node2", ["sleep", "60"], Path("/")))
    sleeping = [["sleep", "60"]]
    while any(list(hosts.processes(name).values()) != sleeping for name in hosts.running()):
        time.sleep(0.05)  # until nsenter has become what it runs
    hosts.kill("node2")
    assert gone.wait() != 0
    assert list(hosts.running()) == ["node1"]
    assert list(hosts.processes("node1").values()) == sleeping
    with pytest.raises(TestbedError, match="must be running, but is down"):
        hosts.inside("node2", ["true"])
    left.kill()
    hosts.start("node2", two / "node2")
    assert reaches("node1", "node2")
