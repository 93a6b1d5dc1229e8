"""What ran a study: its record's format, versions of libraries, machine and git commit."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import kdscale
from kdscale.errors import UserError

FORMAT = 1
"""How a study is written. Raised when an older kdscale could not continue it; a newer one can."""

_LIBRARIES = ("torch", "timm", "ray", "optuna", "mlflow", "numpy")


def record_format() -> dict[str, Any]:
    """Returns what a study's record says of its format: its number, and who wrote it."""
    return {"number": FORMAT, "kdscale": kdscale.__version__}


def check_format(attributes: Mapping[str, Any], where: str) -> None:
    """Returns if this kdscale can read and continue a study.

    Args:
        attributes: The study's attributes; studies older than the number have none.
        where: The study, for the message.

    Raises:
        UserError: If a newer kdscale wrote it in a format that this one does not know.
    """
    known = attributes.get("format", {})
    if known.get("number", FORMAT) > FORMAT:
        raise UserError(
            f"{where}: the study must be in format {FORMAT} or older for kdscale "
            f"{kdscale.__version__}, but kdscale {known.get('kdscale', '?')} wrote it in format "
            f"{known['number']} (install that version or a newer one)"
        )


def versions() -> dict[str, str]:
    """Returns the versions of kdscale and of what numbers depend on: Python, libraries, machine."""
    libraries = {name: version(name) for name in _LIBRARIES}
    place = {"python": platform.python_version(), "machine": machine()}
    return {"kdscale": kdscale.__version__} | libraries | place


def machine() -> str:
    """Returns what this machine computes with: ``2 CPUs (x86_64, Intel Xeon), NVIDIA H200``."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    parts = [platform.machine(), _processor()]
    cpus = f"{os.cpu_count()} CPUs ({', '.join(part for part in parts if part)})"
    return ", ".join([cpus, *gpus])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")


def git_commit() -> str:
    """Returns the commit of the working directory, "+" appended if files changed since, or ""."""
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+" if _git("status", "--porcelain", "-uno") else commit
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()
