"""A study's place in MLflow: its experiment, its id there, and where its artefacts lie."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from kdscale.records import StudyRecord
from kdscale.tracking._summary import NOTE
from kdscale.tracking._uri import OWN_DATABASE, artifact_location, is_own_database
from kdscale.tracking._views import view_tags
from kdscale.urls import hide_passwords

if TYPE_CHECKING:
    from mlflow import MlflowClient

ID_FILE = "mlflow.id"

_PLACES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
"""Where MLflow's database holds places of artefacts: table and column."""

_log = logging.getLogger("kdscale.tracking")


def open_experiment(
    client: MlflowClient, study: StudyRecord, name: str, home: Path, uri: str
) -> str:
    """Returns the experiment's id: found, made, or brought back if it was deleted.

    Args:
        client: MLflow.
        study: The study.
        name: The experiment's name.
        home: Folder of its artefacts, where no server decides.
        uri: The tracking URI.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = artifact_location(home, uri)
        try:
            return str(client.create_experiment(name, location, _tags(study)))
        except MlflowException as error:
            # Another sweep may have made it since; or its first answer was lost on the way.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        # A deleted experiment keeps its name, so that a new one cannot be made.
        client.restore_experiment(found.experiment_id)
        _log.warning(
            "MLflow (%s): the experiment %s had been deleted there, and is restored "
            "(tracking.experiment=NAME tracks in another one)",
            hide_passwords(uri, uri),
            name,
        )
    return str(found.experiment_id)


def owns_experiment(client: MlflowClient, experiment: str, study: str) -> bool:
    """Whether an experiment is a study's own, and not one that several studies share."""
    return bool(client.get_experiment(experiment).tags.get("kdscale.study") == study)


def study_id(folder: Path) -> str:
    """Returns an id that lives and dies with the study folder, and moves with it.

    Names do not tell studies apart: a server may hold a study of the same name by someone else,
    or the one that was there before a fresh start.
    """
    return _known_id(folder) or new_study_id(folder)


def _known_id(folder: Path) -> str:
    """Returns the id in a study folder; empty without one, or where a full disk took none."""
    path = folder / ID_FILE
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def guest_id(folder: Path) -> str:
    """Returns an id of a study that is shown elsewhere; its folder is left as it is."""
    return hashlib.sha256(place_of(folder).encode()).hexdigest()[:32]


def new_study_id(folder: Path) -> str:
    """Returns a new id of the study in a folder: it is another study than before."""
    folder.mkdir(parents=True, exist_ok=True)
    number = uuid.uuid4().hex
    path = folder / ID_FILE
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(f"{number}\n", encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return number


def place_of(folder: Path) -> str:
    """Returns where a study lies, as its run in MLflow says it: ``host:/folder``."""
    return f"{socket.gethostname()}:{folder.resolve()}"


def is_copy(folder: Path, place: str) -> bool:
    """Whether a folder is a copy of the study that still lies at a place of this machine."""
    host, _, other = place.partition(":")
    here = folder.resolve()
    if host != socket.gethostname() or not other or Path(other) == here:
        return False
    known = _known_id(Path(other))
    return bool(known) and known == study_id(here)


def settle_artifacts(folder: Path, uri: str) -> None:
    """Lets a study's own database find its artefacts where the study lies now.

    MLflow knows absolute places only, which a moved or copied study would go on writing to.
    """
    database = folder / OWN_DATABASE
    wanted = artifact_location(folder, uri)
    if not is_own_database(folder, uri) or not database.exists() or wanted is None:
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not {table for table, _ in _PLACES} <= known:
            return
        rows = connection.execute(
            "SELECT DISTINCT artifact_location FROM experiments "
            "WHERE artifact_location LIKE '%/mlartifacts' AND artifact_location != ?",
            (wanted,),
        ).fetchall()
        for (before,) in rows:
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (wanted, len(before) + 1, len(before), before),
                )


def _tags(study: StudyRecord) -> dict[str, str]:
    seeds = ", ".join(str(seed) for seed in study.seeds)
    value = f"{study.mode}_{study.metric}"
    note = (
        f"kdscale study **{study.name}**: {study.goal} {study.metric} ({study.mode}) over "
        f"{', '.join(study.parameters) or 'no parameter'}; {study.epochs} epochs; seeds "
        f"{seeds}. Only trials that trained to the last epoch have `{value}`."
    )
    return {
        "kdscale.study": study.name,
        NOTE: note,
        "mlflow.experimentKind": "custom_model_development",
        **view_tags(study.parameters, value, study.goal),
    }
