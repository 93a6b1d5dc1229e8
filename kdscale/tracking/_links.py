"""Where each trial is to be seen in MLflow's user interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from kdscale.tracking._experiment import ID_FILE
from kdscale.tracking._uri import is_database, mlflow_environment, tracking_uri

UI = "http://127.0.0.1:5000"
"""Where ``kdscale ui`` shows a study that no server tracks."""

TRAINING = "workflowType=machine_learning"
"""Without it MLflow shows a new visitor its pages on language models around a run."""

_PAGE = 1000


@dataclass(frozen=True)
class RunLinks:
    """Where trials are to be seen.

    Attributes:
        pages: Name of a trial -> its page; empty where MLflow cannot be asked.
        needs_ui: Whether ``kdscale ui`` must run for them to open.
    """

    pages: Mapping[str, str]
    needs_ui: bool


def run_links(folder: Path, uri: str | None = None, experiment: str = "") -> RunLinks:
    """Returns the page of each trial that MLflow knows of; makes nothing there.

    Args:
        folder: The study folder.
        uri: The study file's ``tracking.uri``, if it has one.
        experiment: Name of the experiment.
    """
    where = tracking_uri(folder, uri)
    place = urlsplit(where)
    needs_ui = is_database(where)
    identity = folder / ID_FILE
    unknown = RunLinks({}, needs_ui)
    if not identity.exists() or not (needs_ui or place.scheme in ("http", "https")):
        return unknown
    if place.scheme == "sqlite" and not Path(where.removeprefix("sqlite:///")).exists():
        return unknown
    base = base_of(where)
    os.environ.update(mlflow_environment())
    try:
        found = _runs(where, experiment, identity.read_text(encoding="utf-8").strip())
    except Exception:  # a report does not need MLflow, and says where trials are if it can
        return unknown
    pages = {
        name: f"{base}/#/experiments/{number}/runs/{run}?{TRAINING}" for name, number, run in found
    }
    return RunLinks(pages, needs_ui)


def base_of(uri: str) -> str:
    """Returns where the user interface of a tracking URI is, without any password."""
    if is_database(uri):
        return UI
    place = urlsplit(uri)
    address = place.hostname or ""
    if place.port:
        address = f"{address}:{place.port}"
    return urlunsplit((place.scheme, address, place.path.rstrip("/"), "", ""))


def _runs(uri: str, experiment: str, study_id: str) -> list[tuple[str, str, str]]:
    """Returns trial, experiment id and run id of each run of the study."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    rule = f"tags.`kdscale.study_id` = '{study_id}'"
    runs, token = [], None
    while True:
        page = client.search_runs([found.experiment_id], rule, max_results=_PAGE, page_token=token)
        runs += [run for run in page if "kdscale.trial" in run.data.tags]
        token = page.token
        if not token:
            break
    return [
        (run.data.tags["kdscale.trial"], str(found.experiment_id), str(run.info.run_id))
        for run in runs
    ]
