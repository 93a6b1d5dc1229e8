"""What `kdscale doctor` looks at: versions, devices, Ray, disk; and how to mend what is wrong."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version
from rich.markup import escape
from rich.table import Table

_GIBIBYTE = 2**30
_LITTLE_DISK_BYTES = 2 * _GIBIBYTE
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: What.
        seen: What was found.
        mend: How to mend it; empty if it is in order.
        wrong: Whether kdscale cannot work until it is mended.
    """

    subject: str
    seen: str
    mend: str = ""
    wrong: bool = False


def examine(folder: Path) -> list[Finding]:
    """Returns the findings about this machine and the folder where studies will lie.

    Starts nothing: of Ray it looks at the address that a sweep would join.
    """
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _devices,
        _ray,
        lambda: _disk(folder),
        _environment,
    )
    return [finding for look in looks for finding in look()]


def doctor_view(findings: list[Finding]) -> Table:
    """Returns the findings as a table."""
    table = Table(box=None, show_header=False, padding=(0, 1), show_edge=False)
    table.add_column()
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        mark = "[red]✗[/]" if finding.wrong else "[yellow]![/]" if finding.mend else "[green]✓[/]"
        mend = f"\n→ {finding.mend}" if finding.mend else ""
        table.add_row(mark, finding.subject, escape(finding.seen + mend))
    return table


def _python() -> Iterator[Finding]:
    seen = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < _OLDEST_PYTHON
    mend = "kdscale needs Python 3.11 or newer" if old else ""
    yield Finding("Python", f"{seen}, {sys.executable}", mend, wrong=old)


def _packages() -> Iterator[Finding]:
    for text in requires("kdscale") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            mend = f"pip install '{requirement}'"
            yield Finding(requirement.name, "not installed", mend, wrong=True)
            continue
        fits = requirement.specifier.contains(Version(found), prereleases=True)
        mend = "" if fits else f"pip install '{requirement}'"
        yield Finding(requirement.name, found, mend, wrong=not fits)


def _devices() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("CPU", f"{cores} cores for this process, {torch.get_num_threads()} torch threads")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that torch can use: students train on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        memory = about.total_memory / _GIBIBYTE
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding(f"GPU {index}", f"{about.name}, {memory:.0f} GiB, {bf16}")


def _ray() -> Iterator[Finding]:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        yield Finding("Ray", "RAY_ADDRESS is not set: a sweep starts Ray on this machine")
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto" or not port.isdigit():
        yield Finding("Ray", f"RAY_ADDRESS={address}: a sweep joins the cluster found there")
        return
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except (OSError, OverflowError) as error:  # the latter for a port that cannot be
        mend = "start it there (ray start --head), or unset RAY_ADDRESS"
        seen = f"RAY_ADDRESS={address}: nothing answers ({error})"
        yield Finding("Ray", seen, mend, wrong=True)
        return
    yield Finding("Ray", f"RAY_ADDRESS={address}: answers; a sweep joins that cluster")


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    little = free < _LITTLE_DISK_BYTES
    mend = "checkpoints and MLflow need room: free some, or set storage.folder" if little else ""
    yield Finding("disk", f"{free / _GIBIBYTE:.1f} GiB free in {folder}", mend)
    if not os.access(folder, os.W_OK):
        mend = "work in another folder, or set storage.folder"
        yield Finding("folder", f"{folder} cannot be written", mend, wrong=True)


def _environment() -> Iterator[Finding]:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        # The URI may hold a password: say only that it is there.
        yield Finding("MLflow", "MLFLOW_TRACKING_URI is set: studies are tracked there")
    else:
        yield Finding("MLflow", "SQLite in each study's folder (MLFLOW_TRACKING_URI is not set)")
