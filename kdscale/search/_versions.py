"""What ran a study: versions of the libraries, the machine and the git commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

import kdscale

_LIBRARIES = ("torch", "timm", "ray", "optuna", "mlflow", "numpy")


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
