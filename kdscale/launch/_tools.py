"""Programs of others that submit: sbatch, kubectl, and kdscale itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdscale.errors import UserError


def environment() -> dict[str, str]:
    """Returns the environment with the commands beside this Python first, kdscale among them."""
    beside = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def require(program: str, target: str, mend: str) -> None:
    """Holds that a program is there.

    Raises:
        UserError: If it is not.
    """
    if shutil.which(program) is None:
        raise UserError(
            f"--to {target}: there must be a program {program} on this machine's PATH ({mend}; "
            "--dry-run needs none)"
        )


def run(
    command: Sequence[str], text: str, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Returns what a program said of a text on its standard input.

    Raises:
        UserError: If it failed, with its last words.
    """
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, env=variables or environment()
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise UserError(f"{command[0]} failed with exit code {done.returncode}: {'; '.join(said)}")
    return done
