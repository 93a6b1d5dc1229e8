"""Saved views of MLflow's table of runs, which shows neither hyperparameters nor values itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

TRIALS_VIEW = "kdscale"
"""Name of the view of all trials in MLflow's addresses."""

_PREFIX = "mlflow.sharedViewState."
"""What MLflow's user interface keeps its saved views under, among an experiment's tags."""

TRIALS_TAG = f"{_PREFIX}{TRIALS_VIEW}"
"""The tag that holds it."""


def view_tags(
    parameters: Sequence[str], value: str, goal: str, *, studies: bool = False
) -> dict[str, str]:
    """Returns the tags of an experiment that are its views: all trials, and by configuration.

    Args:
        parameters: The hyperparameters, in the order of their columns.
        value: Name of the metric that holds a trial's value: the best runs come first.
        goal: Whether a larger value is the better one.
        studies: Whether the experiment shows several studies.
    """
    tags = [*(["kdscale.study"] if studies else []), "kdscale.configuration", "kdscale.state"]
    columns = [
        f"metrics.`{value}`",
        *(f"params.`{name}`" for name in parameters),
        *(f"tags.`{name}`" for name in tags),
        "attributes.`Models`",
    ]
    state: dict[str, Any] = {
        "searchFilter": "",
        "orderByKey": f"metrics.`{value}`",
        "orderByAsc": goal == "minimize",
        "selectedColumns": columns,
        "runsHiddenMode": "FIRST_20_RUNS",
    }
    keys = [{"mode": "tag", "groupByData": name} for name in tags[:-1]]
    grouped = state | {"groupBy": {"aggregateFunction": "average", "groupByKeys": keys}}
    return {
        TRIALS_TAG: _view("trials, best first", state),
        f"{_PREFIX}kdscale-configurations": _view("configurations, mean over seeds", grouped),
    }


def _view(name: str, state: dict[str, Any]) -> str:
    # One date for all, so that what is written twice is the same.
    about: dict[str, Any] = {"name": name, "createdAt": 0, "updatedAt": 0}
    return json.dumps(about | {"state": json.dumps(state)})
