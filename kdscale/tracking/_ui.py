"""MLflow's user interface on a study."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from kdscale.errors import UserError
from kdscale.tracking._experiment import settle_artifacts
from kdscale.tracking._links import TRAINING
from kdscale.tracking._uri import (
    OWN_DATABASE,
    is_database,
    is_own_database,
    mlflow_environment,
    tracking_uri,
)
from kdscale.tracking._views import TRIALS_TAG, TRIALS_VIEW
from kdscale.urls import hide_passwords


def ui_command(study_folder: Path, uri: str | None = None, *, port: int = 5000) -> list[str]:
    """Returns the command that shows the study in MLflow's UI on this machine only.

    Run it in an environment with `ui_environment`.

    Args:
        study_folder: The study folder.
        uri: The study file's ``tracking.uri``, if it has one.
        port: Port on 127.0.0.1.

    Raises:
        UserError: The study is tracked by a server, which has its own UI, or was never tracked.
    """
    where = tracking_uri(study_folder, uri)
    if not is_database(where):
        shown = hide_passwords(where, where)
        raise UserError(f"the study is tracked by the server {shown}: open that in a browser")
    own = is_own_database(study_folder, where)
    if own and not (study_folder / OWN_DATABASE).exists():
        raise UserError(
            f"{study_folder}: a tracked study must hold mlflow.db, but this one has none "
            "(was it run with tracking.mlflow: false?)"
        )
    settle_artifacts(study_folder, where)
    return [
        *(sys.executable, "-m", "mlflow", "ui"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def ui_page(study_folder: Path, uri: str | None, experiment: str, *, port: int = 5000) -> str:
    """Returns where `ui_command` shows the study's trials, best first.

    MLflow's first page leads a new visitor to its pages on language models. It is what is returned
    for a database other than SQLite, which would have to be asked over the network.

    Args:
        study_folder: The study folder.
        uri: The study file's ``tracking.uri``, if it has one.
        experiment: Name of the experiment.
        port: Port on 127.0.0.1.
    """
    base = f"http://127.0.0.1:{port}/"
    scheme, _, database = tracking_uri(study_folder, uri).partition(":///")
    if scheme != "sqlite" or not Path(database).exists():
        return base
    with closing(sqlite3.connect(database)) as connection:
        try:
            found = connection.execute(
                "SELECT e.experiment_id, t.value FROM experiments e LEFT JOIN experiment_tags t "
                "ON t.experiment_id = e.experiment_id AND t.key = ? WHERE e.name = ?",
                (TRIALS_TAG, experiment),
            ).fetchone()
        except sqlite3.Error:  # it holds no experiments yet
            return base
    if found is None:
        return base
    # An experiment that kdscale has not made has no view of it, and MLflow turns such a link down.
    view = f"viewStateShareKey={TRIALS_VIEW}" if found[1] else TRAINING
    return f"{base}#/experiments/{found[0]}/runs?{view}"


def ui_environment(study_folder: Path, uri: str | None = None) -> dict[str, str]:
    """Returns environment variables for `ui_command`.

    The database is among them, since everybody on a machine can read the words of a command.
    """
    where = tracking_uri(study_folder, uri)
    return mlflow_environment() | {"MLFLOW_BACKEND_STORE_URI": where}
