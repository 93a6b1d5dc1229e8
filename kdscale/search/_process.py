"""Processes as others may know them: by machine, number and start, so that none is mistaken."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_START_FIELD = 19  # of /proc/PID/stat, counted from the state, which follows the name


@dataclass(frozen=True)
class Process:
    """One process of one machine.

    Attributes:
        host: The machine's name, for people.
        machine: What no other machine or container has: the kernel's boot and the name space in
            which processes are counted; empty where that is not known.
        pid: Its number there.
        start: When it started, in the kernel's ticks: numbers are used again.
    """

    host: str
    machine: str
    pid: int
    start: int

    def has_ended(self) -> bool | None:
        """Returns whether it has ended; None if that cannot be seen from here."""
        if not self.machine or self.machine != _machine():
            return None
        return _start(self.pid) != self.start

    def kill(self) -> None:
        """Kills it, if it is of this machine and of nobody else."""
        if self.has_ended() is False:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)


def this_process() -> Process:
    """Returns the process that asks."""
    return Process(socket.gethostname(), _machine(), os.getpid(), _start(os.getpid()) or 0)


@cache
def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:  # not Linux
        return ""


def _start(pid: int) -> int | None:
    """Returns when a process of this machine started; None if there is none that lives."""
    try:
        state, *fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[_START_FIELD - 1])
