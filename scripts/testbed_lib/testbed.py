"""The testbed: hosts with a Ray each, joined to one cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed_lib import hosts
from testbed_lib.hosts import TestbedError

__all__ = ["HEAD", "NodeStatus", "Testbed", "TestbedError"]

HEAD = "node1"
_PORT = 6379
_ROOT = Path(__file__).resolve().parents[2]
_OBJECT_STORE_BYTES = 100_000_000
_JOIN_SECONDS = 60
_QUICK_TO_NOTICE = {
    # A node that says nothing is given up after some 10 seconds; Ray's own settings take longer.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    # What is under way to a node that is cut off fails after this, and not after two minutes.
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
}
_NODES = """\
import sys
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
alive = GcsNodeInfo.GcsNodeState.ALIVE
print(*(node.node_manager_address for node in nodes.values() if node.state == alive))
"""


@dataclass(frozen=True)
class NodeStatus:
    """What is seen of a node.

    Attributes:
        name: Its name.
        address: Its IP address.
        up: Whether it runs.
        linked: Whether its cable is plugged in.
        raylet: Whether its Ray runs.
        joined: Whether the head counts it as alive.
    """

    name: str
    address: str
    up: bool
    linked: bool
    raylet: bool
    joined: bool


@dataclass
class Testbed:
    """A cluster of hosts on this machine; there is one a machine.

    Attributes:
        folder: Holds what the hosts write into their /tmp/ray.
        say: Told each step, in one line.
        head_options: Given to the head's ``ray start`` as well.
    """

    __test__ = False  # pytest takes the name for a test's

    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "kdscale-testbed")
    say: Callable[[str], None] = print
    head_options: Sequence[str] = ()

    def up(self, count: int, cpus: int = 2) -> None:
        """Starts hosts and a Ray on each.

        Args:
            count: How many.
            cpus: CPUs that each Ray believes to have.

        Raises:
            TestbedError: If there is a testbed already, or this machine can have none.
        """
        if why := hosts.why_not_here():
            raise TestbedError(why)
        if there := list(hosts.running()):
            raise TestbedError(
                f"there must be no testbed yet, but {', '.join(there)} are up "
                "(scripts/testbed down)"
            )
        self.down()  # what an earlier one may have left
        self.folder.mkdir(mode=0o700, parents=True)
        self._token.write_text(uuid.uuid4().hex)
        self._size.write_text(f"{count} {cpus}")
        hosts.start_switch()
        for name in self.names:
            self._start_host(name)
        for name in self.names:
            self.start_ray(name)

    def down(self) -> None:
        """Takes everything away: processes, namespaces, files."""
        for name in hosts.running():
            self.say(f"{name}: killed")
        hosts.kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self, name: str) -> None:
        """Kills a node as a power cut does: all of its processes at once."""
        self._check(name)
        hosts.kill(name)
        self.say(f"{name}: killed")

    def cut(self, name: str) -> None:
        """Takes a node's link down. Its processes go on."""
        self._check(name)
        hosts.inside(name, [])
        hosts.set_link(name, up=False)
        self.say(f"{name}: link down")

    def mend(self, name: str) -> None:
        """Makes a node a part of the cluster again: host, link, Ray, what it lacks of them.

        With the head's Ray a cluster ends: the other nodes join the new one.
        """
        self._check(name)
        if name not in hosts.running():
            self._start_host(name)
        elif not hosts.link_is_up(name):
            hosts.set_link(name, up=True)
            self.say(f"{name}: link up")
        if name == HEAD and not (self.daemons(HEAD, "gcs_server") and self._raylet(HEAD)):
            for other in self.names:
                if other in hosts.running():
                    self.start_ray(other)
        elif not self._raylet(name) or hosts.address(name) not in self.joined():
            self.start_ray(name)
        else:
            self.say(f"{name}: Ray is there")

    def start_ray(self, name: str) -> None:
        """Starts a node's Ray, after killing what is left of an earlier one.

        Raises:
            TestbedError: If it does not start.
        """
        self.kill_processes(name)
        words = [_program("ray"), "start", "--node-ip-address", hosts.address(name)]
        words += ["--num-cpus", self._size.read_text().split()[1], "--disable-usage-stats"]
        words += ["--object-store-memory", str(_OBJECT_STORE_BYTES)]
        if name == HEAD:
            words += ["--head", "--port", str(_PORT), "--dashboard-host", "127.0.0.1"]
            words += self.head_options
        else:
            words += ["--address", self.address]
        log = self.folder / name / "ray-start.log"
        with log.open("a") as output:
            # To a file: the daemons inherit it, and a pipe would stay open as long as they run.
            command = hosts.inside(name, words, Path("/"))
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
                start_new_session=True,  # else a Ctrl-C here would end the daemons too
            )
        if ended.returncode:
            last = [line for line in log.read_text().splitlines() if line.strip()][-5:]
            raise TestbedError(f"{name}: ray start must work, but: " + "\n".join(last))
        self.say(f"{name}: Ray at {hosts.address(name)}" + (" (head)" if name == HEAD else ""))

    def kill_processes(self, name: str) -> None:
        """Kills all processes of a node but its first one, which is the node."""
        subprocess.run(
            hosts.inside(name, ["bash", "-c", "kill -KILL -1"], Path("/")), capture_output=True
        )

    def status(self) -> list[NodeStatus]:
        """Returns what is seen of each node."""
        up, joined = hosts.running(), self.joined()
        return [
            NodeStatus(
                name=name,
                address=hosts.address(name),
                up=name in up,
                linked=name in up and hosts.link_is_up(name),
                raylet=name in up and self._raylet(name),
                joined=hosts.address(name) in joined,
            )
            for name in self.names
        ]

    def command(
        self, words: Sequence[str], node: str = HEAD, folder: Path | None = None
    ) -> list[str]:
        """Returns the command that runs a command on a node; it wants `environment`."""
        return hosts.inside(node, words, folder)

    def run(self, words: Sequence[str], node: str = HEAD) -> int:
        """Runs a command on a node with this terminal, and returns its exit code."""
        self._check(node)
        command = self.command([_program(words[0]), *words[1:]], node)
        return subprocess.run(command, env=self.environment()).returncode

    def joined(self) -> set[str]:
        """Returns the addresses of the nodes that the head counts as alive."""
        if HEAD not in hosts.running():
            return set()
        words = [sys.executable, "-c", _NODES, self.address]
        asked = subprocess.run(
            hosts.inside(HEAD, words, Path("/")),
            capture_output=True,
            text=True,
            env=self._environment(),
        )
        return set(asked.stdout.split()) if asked.returncode == 0 else set()

    def wait_joined(self, names: Sequence[str], *, seconds: float = _JOIN_SECONDS) -> None:
        """Returns when exactly these nodes are alive to the head.

        Raises:
            TestbedError: If that takes too long.
        """
        wanted, end = {hosts.address(name) for name in names}, time.monotonic() + seconds
        while (there := self.joined()) != wanted:
            if time.monotonic() > end:
                raise TestbedError(f"the cluster must be {sorted(wanted)}, but is {sorted(there)}")
            time.sleep(0.5)

    def daemons(self, name: str, program: str) -> list[int]:
        """Returns the processes of a node that run one of Ray's programs, such as raylet."""
        found = hosts.processes(name).items()
        return [pid for pid, words in found if words[0].endswith(f"/{program}")]

    def environment(self) -> dict[str, str]:
        """Returns the environment of a user of this cluster."""
        return self._environment() | {"RAY_ADDRESS": self.address}

    @property
    def address(self) -> str:
        """The address of the cluster, which its nodes alone can reach."""
        return f"{hosts.address(HEAD)}:{_PORT}"

    @property
    def names(self) -> list[str]:
        """The nodes, up or not.

        Raises:
            TestbedError: If there is no testbed.
        """
        try:
            count = int(self._size.read_text().split()[0])
        except FileNotFoundError:
            raise TestbedError(
                "there must be a testbed, but there is none (scripts/testbed up 2)"
            ) from None
        return [f"node{number}" for number in range(1, count + 1)]

    @property
    def _size(self) -> Path:
        return self.folder / "size"

    @property
    def _token(self) -> Path:
        return self.folder / "token"

    def _start_host(self, name: str) -> None:
        hosts.start(name, self.folder / name)
        self.say(f"{name}: host at {hosts.address(name)}")

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise TestbedError(f"NODE: must be one of {', '.join(self.names)}, but got {name}")

    def _raylet(self, name: str) -> bool:
        return bool(self.daemons(name, "raylet"))

    def _environment(self) -> dict[str, str]:
        path = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        python_path = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        kept = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
        return (
            _QUICK_TO_NOTICE
            | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
            | kept
            | {
                "PATH": os.pathsep.join(filter(None, path)),
                "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self._token),
            }
        )


def _program(name: str) -> str:
    """Returns a program of the environment that this runs in, or the name as it is."""
    path = Path(sys.executable).parent / name
    return str(path) if path.exists() else name
