"""Whether a disturbed study came out as one left alone."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from chaos_lib.watch import same_content
from kdscale.analysis import write_report
from kdscale.search import Ledger, Study, load_study, open_ledger
from kdscale.search._storage import open_storage, study_names
from kdscale.training import student_path
from kdscale.training._checkpoint import load_checkpoint

_MAY_DIFFER = {"attempt", "train_seconds", "cohort"}
"""Columns of the report's trials that tell of the way there."""

_OTHERWISE = ("trials.csv", "compute.csv")
"""Tables of the report that are compared in ``report.csv``, or hold seconds alone."""


def differences(left_alone: Path, disturbed: Path) -> list[str]:
    """Returns how the studies of two files differ, a line each.

    Args:
        left_alone: The study file of the one.
        disturbed: The study file of the other.
    """
    return list(_differences(load_study(left_alone), load_study(disturbed)))


def tracking_differences(path: Path, mlflow: Path) -> list[str]:
    """Returns how MLflow's experiment differs from a study, a line each.

    Args:
        path: The study file.
        mlflow: What the server has written: ``mlflow.db``.
    """
    from mlflow import MlflowClient

    study = load_study(path)
    client = MlflowClient(tracking_uri=f"sqlite:///{mlflow / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study.name)
    if experiment is None:
        return [f"MLflow has no experiment {study.name}"]
    runs = defaultdict(list)
    for run in client.search_runs([experiment.experiment_id], max_results=10_000):
        if (name := run.data.tags.get("kdscale.trial")) is not None:
            runs[name].append(run.info.run_id)
    found = []
    ledger = open_ledger(study, create=False)
    for trial in (*ledger.trials, *ledger.controls):
        there = runs.pop(trial.name, [])
        if len(there) != 1:
            found.append(f"MLflow has {len(there)} runs of {trial.name}")
            continue
        for metric in sorted({name for row in trial.history for name in row} - {"epoch"}):
            points = client.get_metric_history(there[0], metric)
            told = [(point.step, point.value) for point in points]
            if told != [(int(row["epoch"]), row[metric]) for row in trial.history]:
                found.append(f"MLflow has other points of {trial.name}'s {metric}: {told}")
    return found + [f"MLflow has a run of {name}, which is no trial" for name in runs]


def _report_differences(left_alone: Study, disturbed: Study) -> Iterator[str]:
    """Yields the tables of the reports that differ; both are written anew, in folders of theirs."""
    texts = []
    for study in (left_alone, disturbed):
        with TemporaryDirectory() as folder:
            # One of them may have been tested, for which its weights stand.
            record = replace(open_ledger(study, create=False).record(), final=None)
            paths = write_report(record, Path(folder))
            rows = csv.DictReader(paths.csv.open(newline=""))
            trials = [{key: row[key] for key in row.keys() - _MAY_DIFFER} for row in rows]
            tables = {one.name: one.read_text() for one in paths.tables if one.suffix == ".csv"}
            for name in _OTHERWISE:
                tables.pop(name, None)
            texts.append({"report.csv": trials} | tables)
    wanted, found = texts
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            yield f"{name} of the report is {found.get(name)!r} and should be {wanted.get(name)!r}"


def _differences(left_alone: Study, disturbed: Study) -> Iterator[str]:
    for study in (left_alone, disturbed):
        for recorded, times in _times_recorded(study).items():
            if times > 1:
                yield f"{study.folder}: {recorded} is there {times} times"
    wanted = _numbers(open_ledger(left_alone, create=False))
    found = _numbers(open_ledger(disturbed, create=False))
    for trial in sorted(wanted.keys() - found.keys()):
        yield f"{trial} is lost"
    for trial in sorted(found.keys() - wanted.keys()):
        yield f"{trial} is there and should not be"
    for trial in sorted(wanted.keys() & found.keys()):
        for what, value in wanted[trial].items():
            if found[trial][what] != value:
                yield f"{trial}: {what} is {found[trial][what]!r} and should be {value!r}"
        files = [student_path(one.folder / "trials" / trial) for one in (left_alone, disturbed)]
        there = [path.exists() for path in files]
        if there[0] != there[1]:
            yield f"{trial}: one of the studies has no student"
        elif all(there) and not same_content(*map(load_checkpoint, files)):
            yield f"{trial}: the student's weights differ"
    yield from _report_differences(left_alone, disturbed)


def _numbers(ledger: Ledger) -> dict[str, dict[str, Any]]:
    return {
        trial.name: {
            "parameters": dict(trial.parameters),
            "state": trial.state,
            "value": trial.value,
            "history": [dict(row) for row in trial.history],
            "reason": trial.reason,
            "student": trial.student,
        }
        for trial in (*ledger.trials, *ledger.controls)
    }


def _times_recorded(study: Study) -> Counter[tuple[Any, ...]]:
    """Returns how often each trial is in Optuna's storage, whatever the ledger makes of it."""
    storage = open_storage(study)
    names = set(study_names(study)) & set(optuna.get_all_study_names(storage))
    return Counter(
        (name, trial.user_attrs.get("configuration"), trial.user_attrs["seed"])
        for name in names
        for trial in storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
    )
