"""The working directory of a Ray job: which files Ray uploads, and where it puts them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from kdscale.errors import UserError
from kdscale.launch._artefact import Upload
from kdscale.search import Study

EXCLUDES = (
    "/studies",
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    "*.egg-info",
    "mlruns",
    "checkpoint.pt",
)
"""What a sweep does not read, in .gitignore's grammar: records, caches, environments."""

_RAY_FOLDER = "_ray_pkg_"
"""How Ray names the folder on a node that it unpacks an upload into."""


def files_to_upload(folder: Path) -> list[Upload]:
    """Returns the files that Ray takes of a working directory, by Ray's own packaging.

    Ray leaves out what .gitignore and .rayignore name, its default excludes, and ours.
    """
    from ray._private.ray_constants import (
        RAY_RUNTIME_ENV_IGNORE_GITIGNORE,
        get_runtime_env_default_excludes,
    )
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    found: list[Upload] = []

    def take(path: Path) -> None:
        if path.is_file():
            found.append(Upload(path.relative_to(folder), path.stat().st_size))

    folder = folder.absolute()
    excludes = [*get_runtime_env_default_excludes(), *EXCLUDES]
    with_gitignore = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    quiet = logging.getLogger(f"{__name__}.quiet")
    quiet.setLevel(logging.CRITICAL)
    _dir_travel(folder, [_get_excludes(folder, excludes)], take, with_gitignore, quiet)
    return found


def upload_limit_bytes() -> int:
    """Returns the size that Ray refuses: 512 MiB, or RAY_max_grpc_message_size."""
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

    return int(GCS_STORAGE_MAX_SIZE)


def check_folder_stays(study: Study) -> None:
    """Holds that a sweep in a Ray job keeps its study where it outlives the job.

    Raises:
        UserError: If the study would lie in the upload's folder, which Ray deletes.
    """
    folder = study.storage.folder
    here = Path.cwd()
    if not folder.is_absolute() and any(part.startswith(_RAY_FOLDER) for part in here.parts):
        raise UserError(
            "storage.folder: must be an absolute path in a Ray job, whose working directory Ray "
            f"deletes, but got {folder} (add storage.folder=/shared/{folder.name}, a folder that "
            "all nodes share)"
        )
