from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

from kdscale.search._process import Process, _start, this_process


def test_a_process_is_known_by_its_start() -> None:
    me = this_process()
    assert me.pid == os.getpid()
    assert me.has_ended() is False
    assert replace(me, start=me.start - 1).has_ended() is True  # its number was used again
    assert replace(me, machine="another").has_ended() is None
    assert replace(me, machine="").has_ended() is None


def test_a_process_is_killed_and_another_of_its_number_is_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = _start(child.pid)
    assert start is not None
    process = replace(this_process(), pid=child.pid, start=start)
    replace(process, start=start - 1).kill()
    replace(process, machine="another").kill()
    assert child.poll() is None
    process.kill()
    assert child.wait() == -signal.SIGKILL
    assert process.has_ended() is True


def test_a_dead_process_that_nobody_has_buried_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = _start(child.pid)
    assert start is not None
    process = Process("", this_process().machine, child.pid, start)
    process.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.has_ended() is True
    child.wait()
