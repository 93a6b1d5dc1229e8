"""Where MLflow keeps a study, and how to look at it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from kdscale.errors import UserError

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The tracker tries again by itself; MLflow's own seven retries would only hold up the end.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
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
    return chosen or _own_database(study_folder)


def artifact_location(study_folder: Path, uri: str) -> str | None:
    """Returns where a new experiment's artefacts go, or None where a server decides.

    Without it MLflow would put the artefacts of a database into the working directory.
    """
    if is_database(uri):
        return (study_folder.resolve() / "mlartifacts").as_uri()
    return None


def is_database(uri: str) -> bool:
    """Whether the URI names a database that MLflow opens itself, rather than a server."""
    return urlsplit(uri).scheme.split("+")[0] in {"sqlite", "postgresql", "mysql", "mssql"}


def without_password(text: str, uri: str) -> str:
    """Returns the text with the URI's password, if it has one, replaced by ``***``."""
    password = urlsplit(uri).password
    return text.replace(password, "***") if password else text


def mlflow_environment() -> dict[str, str]:
    """Returns environment variables for MLflow: no telemetry, no chatter, short waits.

    What the user has set stays as it is.
    """
    return {name: os.environ.get(name, value) for name, value in _QUIET.items()}


def ui_command(study_folder: Path, uri: str | None = None, *, port: int = 5000) -> list[str]:
    """Returns the command that shows the study in MLflow's UI on this machine only.

    Run it in an environment with `mlflow_environment`.

    Args:
        study_folder: The study folder.
        uri: The study file's ``tracking.uri``, if it has one.
        port: Port on 127.0.0.1.

    Raises:
        UserError: The study is tracked by a server, which has its own UI, or was never tracked.
    """
    where = tracking_uri(study_folder, uri)
    if not is_database(where):
        shown = without_password(where, where)
        raise UserError(f"the study is tracked by the server {shown}: open that in a browser")
    if where == _own_database(study_folder) and not (study_folder / "mlflow.db").exists():
        raise UserError(
            f"{study_folder}: a tracked study must hold mlflow.db, but this one has none "
            "(was it run with tracking.mlflow: false?)"
        )
    return [
        *(sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", where),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def _own_database(study_folder: Path) -> str:
    return f"sqlite:///{(study_folder.resolve() / 'mlflow.db').as_posix()}"
