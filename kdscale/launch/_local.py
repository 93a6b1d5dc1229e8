"""This machine, now: the sweep on a Ray of its own."""

from __future__ import annotations

import shlex
import subprocess

from kdscale.launch._artefact import Artefact
from kdscale.launch._request import Request
from kdscale.launch._tools import environment


def render(request: Request) -> Artefact:
    """Returns the command that sweeps here, whatever cluster RAY_ADDRESS names."""
    command = shlex.join(["env", "-u", "RAY_ADDRESS", *request.sweep(request.path)])
    return Artefact(f"{command}\n")


def submit(request: Request, artefact: Artefact) -> int:
    """Runs it in the foreground, and returns its exit code."""
    return subprocess.call(shlex.split(artefact.text), env=environment())
