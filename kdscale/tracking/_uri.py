"""Where MLflow keeps a study."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

OWN_DATABASE = "mlflow.db"
OWN_ARTIFACTS = "mlartifacts"

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The tracker tries again by itself, and looks first what the server has done: MLflow would
    # make a run twice whose first answer was lost.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Eight processes of the UI's server that only serve what a study does not have.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def tracking_uri(study_folder: Path, uri: str | None = None) -> str:
    """Returns where the study is tracked: `uri`, ``MLFLOW_TRACKING_URI`` or the study folder.

    Args:
        study_folder: Holds ``mlflow.db`` where nothing else is said.
        uri: The study file's ``tracking.uri``, if it has one.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI")
    return chosen or own_database(study_folder)


def artifact_location(study_folder: Path, uri: str) -> str | None:
    """Returns where a new experiment's artefacts go, or None where a server decides.

    Without it MLflow would put the artefacts of a database into the working directory.
    """
    if is_database(uri):
        return (study_folder.resolve() / OWN_ARTIFACTS).as_uri()
    return None


def is_database(uri: str) -> bool:
    """Whether the URI names a database that MLflow opens itself, rather than a server."""
    return urlsplit(uri).scheme.split("+")[0] in {"sqlite", "postgresql", "mysql", "mssql"}


def is_own_database(study_folder: Path, uri: str) -> bool:
    """Whether the URI names the database that lies in the study's folder."""
    return uri == own_database(study_folder)


def mlflow_environment() -> dict[str, str]:
    """Returns environment variables for MLflow: no telemetry, no chatter, short waits.

    What the user has set stays as it is.
    """
    return {name: os.environ.get(name, value) for name, value in _QUIET.items()}


def own_database(study_folder: Path) -> str:
    """Returns the URI of the database in a study's folder."""
    return f"sqlite:///{(study_folder.resolve() / OWN_DATABASE).as_posix()}"
