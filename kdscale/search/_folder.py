"""A study's folder: the study that lies in it, and whether it can be written."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from kdscale.errors import UserError
from kdscale.search._study import Study, load_study
from kdscale.search._yaml import read_yaml

STUDY_FILE = "study.yaml"


def load_folder(path: Path, overrides: Sequence[str]) -> Study:
    """Returns the study of a folder that a sweep has made.

    Args:
        path: The folder; of one task of a study, STUDY/TASK.
        overrides: Overrides in Hydra's grammar.

    Raises:
        UserError: If it is no study folder, or has been renamed.
    """
    file = path / STUDY_FILE
    if not file.exists():
        raise UserError(f"{path}: must be a study file, or a study folder with {STUDY_FILE} in it")
    name = str(read_yaml(file).data.get("name", ""))
    place = path.resolve().parents[name.count("/")]
    quoted = str(place).replace("'", "\\'")
    study = load_study(file, [f"storage.folder='{quoted}'", *overrides])
    if study.name != path.resolve().relative_to(place).as_posix():
        raise UserError(
            f"{path}: a study's folder must have the study's name, but that is {study.name} "
            f"(rename the folder; for a new study like it, give {file})"
        )
    return study


def make_folder(folder: Path) -> None:
    """Makes a study's folder if it is missing, before anything is trained for it.

    Raises:
        UserError: If it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: must be a folder to write to, but: {error}") from error
