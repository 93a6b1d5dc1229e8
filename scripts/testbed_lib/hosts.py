"""Hosts and the switch between them, each a process that holds Linux namespaces open.

The first process of a host is the whole host: when it is killed, the kernel kills all others of
its process namespace, and takes its network and mounts away with them. It is found by its name, so
there is no record of it that could be wrong.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

NETWORK = "10.77.0"
HERE = f"{NETWORK}.254"
"""This machine's own address in the hosts' network."""

_MARK = "kdscale-testbed:"
_SWITCH = "switch"
_CABLE = "kds-lan"
_NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--ipc")
_START_SECONDS = 20

_SWITCH_SCRIPT = """\
ip link add lan type bridge
ip link set lan up
"""

_HOST_SCRIPT = """\
hostname {name}
ip link set lo up
mkdir -p /tmp/ray
mount --bind {folder}/ray /tmp/ray
mount --bind {folder}/hosts /etc/hosts
mount -t tmpfs tmpfs /dev/shm
"""

_STAY = """\
trap '' CHLD  # so that the kernel buries what ends here
exec -a {mark}{name} sleep infinity
"""


class TestbedError(Exception):
    """What a person who runs the testbed can mend."""

    __test__ = False  # pytest takes the name for a test's


def why_not_here() -> str:
    """Returns what keeps this machine from having hosts, "" if nothing does."""
    if os.name != "posix" or not Path("/proc/self/ns/net").exists():
        return "the testbed needs Linux namespaces, which are not there"
    if os.geteuid() != 0:
        return "the testbed needs root, for namespaces of its own"
    try:
        made = subprocess.run(
            ["unshare", *_NAMESPACES, "--fork", "ip", "link", "add", "kds0", "type", "bridge"],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        return f"the testbed needs unshare and ip (util-linux, iproute2), but {error.filename}"
    if made.returncode:
        return f"the testbed needs namespaces, but unshare says: {made.stderr.strip()}"
    return ""


def address(name: str) -> str:
    """Returns the IP address of a host: 10.77.0.3 for node3."""
    return f"{NETWORK}.{_number(name)}"


def running() -> dict[str, int]:
    """Returns the first process of each host that is there, by name, in their order."""
    found = {name: pid for name, pid in _marked().items() if name != _SWITCH}
    return dict(sorted(found.items(), key=lambda item: _number(item[0])))


def start_switch() -> None:
    """Starts the switch, and plugs this machine in: its cable goes when the switch does."""
    switch = _start(_SWITCH, ["unshare", "--net"], _SWITCH_SCRIPT)
    with suppress(TestbedError):  # the kernel takes the last one away in its own time
        _run("ip", "link", "delete", _CABLE)
    there = ["name", _port(_SWITCH), "netns", str(switch)]
    _run("ip", "link", "add", _CABLE, "type", "veth", "peer", *there)
    _in_network(switch, "link", "set", _port(_SWITCH), "master", "lan", "up")
    _run("ip", "address", "add", f"{HERE}/24", "dev", _CABLE)
    _run("ip", "link", "set", _CABLE, "up")


def start(name: str, folder: Path) -> None:
    """Starts a host and plugs it in.

    Its name resolves to 127.0.1.1 on it, as on a fresh Debian, and to its address on no other.

    Args:
        name: ``node1`` and so on.
        folder: Holds its /tmp/ray, emptied.
    """
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    (folder / "ray").mkdir(parents=True)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
    unshare = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
    script = _HOST_SCRIPT.format(name=name, folder=shlex.quote(str(folder)))
    pid = _start(name, [*unshare, "--propagation", "private"], script)
    port, switch = _port(name), _marked()[_SWITCH]
    with suppress(TestbedError):  # the kernel takes it away in its own time
        _in_network(switch, "link", "delete", port)
    # The same hardware address each time: others would look for the old one for a while.
    here = ["eth0", "address", f"02:00:00:00:00:{_number(name):02x}", "netns", str(pid)]
    there = ["name", port, "netns", str(switch)]
    _run("ip", "link", "add", *here, "type", "veth", "peer", *there)
    _in_network(switch, "link", "set", port, "master", "lan", "up")
    _in_network(pid, "address", "add", f"{address(name)}/24", "dev", "eth0")
    _in_network(pid, "link", "set", "eth0", "up")
    _in_network(pid, "route", "add", "default", "dev", "eth0")  # by which Ray finds its address


def set_link(name: str, *, up: bool) -> None:
    """Plugs a host's cable in at the switch, or out."""
    _in_network(_marked()[_SWITCH], "link", "set", _port(name), "up" if up else "down")


def link_is_up(name: str) -> bool:
    """Returns whether a host's cable is plugged in."""
    told = _in_network(_marked()[_SWITCH], "-o", "link", "show", _port(name))
    flags = re.search(r"<(.*?)>", told)
    return flags is not None and "UP" in flags[1].split(",")


def kill(name: str) -> None:
    """Kills a host as a power cut does: all of its processes at once."""
    pid = _marked().get(name)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        _wait(lambda: name not in _marked(), f"{name} does not end")


def kill_all() -> None:
    """Kills every host and the switch."""
    for name in _marked():
        kill(name)


def processes(name: str) -> dict[int, list[str]]:
    """Returns the command line of each process on a host but its first, by its number here."""
    first = running().get(name)
    if first is None:
        return {}
    home = os.readlink(f"/proc/{first}/ns/pid")
    found = {}
    for pid in _pids():
        with suppress(OSError):
            if pid != first and os.readlink(f"/proc/{pid}/ns/pid") == home and not _ended(pid):
                found[pid] = _words(pid)
    return found


def inside(name: str, words: Sequence[str], folder: Path | None = None) -> list[str]:
    """Returns the command that runs a command on a host, in a working directory."""
    pid = running().get(name)
    if pid is None:
        raise TestbedError(f"{name}: must be running, but is down (scripts/testbed mend {name})")
    return ["nsenter", f"--target={pid}", *_NAMESPACES, f"--wd={folder or Path.cwd()}", *words]


def _start(name: str, unshare: Sequence[str], script: str) -> int:
    words = ["bash", "-c", f"set -e\n{script}{_STAY.format(mark=_MARK, name=name)}"]
    process = subprocess.Popen(
        [*unshare, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd="/",
    )

    def there() -> bool:
        if process.poll() is not None:
            assert process.stderr is not None
            raise TestbedError(f"{name} did not start: {process.stderr.read().strip()}")
        return name in _marked()

    _wait(there, f"{name} does not start")
    return _marked()[name]


def _marked() -> dict[str, int]:
    found = {}
    for pid in _pids():
        with suppress(OSError):
            words = _words(pid)
            if words and words[0].startswith(_MARK):
                found[words[0].removeprefix(_MARK)] = pid
    return found


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _words(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")


def _ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _number(name: str) -> int:
    return int(name.removeprefix("node"))


def _port(name: str) -> str:
    return f"to-{name}"


def _in_network(pid: int, *words: str) -> str:
    return _run("nsenter", f"--target={pid}", "--net", "ip", *words)


def _run(*words: str) -> str:
    ran = subprocess.run(words, capture_output=True, text=True)
    if ran.returncode:
        raise TestbedError(f"{shlex.join(words)}: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout


def _wait(true: Callable[[], bool], problem: str) -> None:
    end = time.monotonic() + _START_SECONDS
    while not true():
        if time.monotonic() > end:
            raise TestbedError(problem)
        time.sleep(0.05)
