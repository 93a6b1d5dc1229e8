"""What ran a study: versions of the libraries and the git commit."""

from __future__ import annotations

import subprocess
from importlib.metadata import version

import kdscale

_LIBRARIES = ("torch", "timm", "ray", "optuna", "mlflow", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of kdscale and of the libraries that numbers depend on."""
    return {"kdscale": kdscale.__version__} | {name: version(name) for name in _LIBRARIES}


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
