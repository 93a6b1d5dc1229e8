"""Several studies in one view of MLflow's user interface."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from kdscale.errors import UserError
from kdscale.records import StudyRecord
from kdscale.tracking._links import TRAINING, base_of
from kdscale.tracking._problem import problem_of
from kdscale.tracking._summary import NOTE
from kdscale.tracking._tracker import make_tracker
from kdscale.tracking._uri import mlflow_environment, own_database
from kdscale.tracking._views import view_tags


def track_together(
    studies: Sequence[StudyRecord],
    folder: Path,
    experiment: str,
    text: str,
    on_unsent: Callable[[int], None],
) -> None:
    """Writes the runs of all studies into one experiment of a database of its own.

    What is there already is not written again.

    Args:
        studies: The studies.
        folder: Gets ``mlflow.db``.
        experiment: The experiment's name.
        text: Its description, in Markdown.
        on_unsent: Called again and again with the number of a study's trials still to be written.

    Raises:
        UserError: MLflow does not take everything.
    """
    where = own_database(folder)
    for study in studies:
        tracker = make_tracker(study, where, experiment, host=folder)
        tracker.wait(on_unsent)
        if tracker.problem:
            raise UserError(tracker.problem)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=where)
    found = client.get_experiment_by_name(experiment)
    first = studies[0]
    names = list(dict.fromkeys(name for study in studies for name in study.parameters))
    views = view_tags(names, f"{first.mode}_{first.metric}", first.goal, studies=True)
    for name, value in {NOTE: text, **views}.items():
        client.set_experiment_tag(found.experiment_id, name, value)


def shared_page(experiments: Sequence[str], uri: str) -> str:
    """Returns the page on which a server shows the runs of several experiments together.

    Args:
        experiments: Their names.
        uri: The server.

    Raises:
        UserError: The server cannot be asked, or has not all of them.
    """
    os.environ.update(mlflow_environment())
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    numbers = []
    for name in experiments:
        try:
            found = client.get_experiment_by_name(name)
        except Exception as error:
            raise UserError(problem_of(error, uri)) from error
        if found is None:
            raise UserError(f"MLflow has no experiment {name} (kdscale track sends it there)")
        numbers.append(str(found.experiment_id))
    chosen = quote(json.dumps(numbers, separators=(",", ":")))
    return f"{base_of(uri)}/#/compare-experiments/s?experiments={chosen}&{TRAINING}"
