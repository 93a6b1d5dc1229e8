"""A Slurm of one machine, closed in namespaces of its own: ending their first process ends it all.

Inside are a process tree, a network, and a /tmp/ray of its own, so that `ray stop` in a job, which
ends every Ray that it can see, sees that of the box alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """\
ClusterName=box
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=box Nodes={host} Default=YES State=UP
"""

_START = """\
set -e
ip link set lo up
ip link add box0 type veth peer name box1  # names resolve only where there is more than loopback
ip addr add 10.79.0.1/24 dev box0
ip link set box0 up && ip link set box1 up
mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray
munged --force --num-threads=1 --key-file="$0/munge.key" --socket="$0/munge.socket" \\
    --pid-file="$0/munged.pid" --log-file="$0/munged.log" --seed-file="$0/munge.seed"
slurmctld -c -f "$0/slurm.conf"
slurmd -f "$0/slurm.conf"
touch "$0/up"
sleep infinity &
wait $!  # bash as the first process takes the ended ones away; sleep would leave zombies
"""


@dataclass(frozen=True)
class Box:
    """A running box."""

    folder: Path
    first_process: int

    def command(self, *words: str, folder: Path) -> list[str]:
        """Returns a command that runs these words inside, in a folder."""
        into = ["nsenter", f"--target={self.first_process}", "--pid", "--mount", "--net"]
        return [*into, f"--wd={folder}", *words]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user of this Slurm."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}


def why_not_here() -> str:
    """Returns what keeps this machine from running a box, "" if nothing does.

    Slurm is installed from Debian where it is not there.
    """
    if os.geteuid() != 0:
        return "a Slurm of one machine needs root, for namespaces of its own"
    if subprocess.run(["unshare", "--pid", "--fork", "--mount", "--net", "true"]).returncode:
        return "a Slurm of one machine needs namespaces, and unshare cannot make them here"
    if all(shutil.which(tool) for tool in ("slurmctld", "slurmd", "sbatch", "munged")):
        return ""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "--quiet", "--yes"]
    wanted = [*apt, "install", "--no-install-recommends", "slurm-wlm", "munge"]
    try:
        for command in ([*apt, "update"], wanted):
            subprocess.run(command, env=quiet, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a Slurm of one machine needs slurm-wlm and munge of Debian: {error}"
    return ""


@contextmanager
def slurm_box(folder: Path, cpus: int) -> Iterator[Box]:
    """Yields a running box that keeps its files in a folder."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(256))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(_CONFIG.format(host=host, folder=folder, cpus=cpus))
    namespaces = ["--pid", "--fork", "--mount-proc", "--mount", "--net", "--kill-child"]
    with_us = ["setpriv", "--pdeathsig", "KILL"]  # also where pytest is killed
    start = [*with_us, "unshare", *namespaces, "bash", "-c", _START, str(folder)]
    outer = subprocess.Popen(start)
    try:
        while not (folder / "up").exists():
            assert outer.poll() is None, "the box did not start"
            time.sleep(0.1)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        yield Box(folder, int(children[0]))
    finally:
        outer.kill()  # and so, by --kill-child, the first process and all others inside
        outer.wait()
