"""Starting a study over: what that deletes, said before it is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import optuna
from optuna.storages import RDBStorage

from kdscale.errors import UserError
from kdscale.search._fences import stop_workers
from kdscale.search._lease import StudyLease
from kdscale.search._remote import delete_remote, study_remote
from kdscale.search._storage import DATABASE, open_storage, study_names
from kdscale.search._study import Study

_OWNED = (
    DATABASE,
    f"{DATABASE}-*",
    "study.yaml",
    "sweep.lock",
    "leases/*.json",
    "trials",
    "teacher",
    "teachers",
    "single",
    "ray",
    "report.html",
    "report.csv",
    "report.md",
    "report-tables",
    "mlflow.db",
    "mlflow.db-*",
    "mlflow.id",
    "mlartifacts",
)
"""Patterns of the files and folders that kdscale makes in a study folder, but the fence."""

_MEBIBYTE = 2**20


def what_fresh_deletes(study: Study) -> list[str]:
    """Returns a line for each thing of the study that starting over deletes; empty if none."""
    lines = []
    for pattern in _OWNED:
        for path in sorted(study.folder.glob(pattern)):
            files = [file for file in (path, *path.rglob("*")) if file.is_file()]
            size = sum(file.stat().st_size for file in files) / _MEBIBYTE
            about = f"{len(files)} files, " if path.is_dir() else ""
            lines.append(f"{path} ({about}{size:.1f} MiB)")
    if study.storage.url is not None and not study.tasks:
        storage = open_storage(study)
        for name in study_names(study):
            if name in optuna.get_all_study_names(storage):
                trials = len(storage.get_all_trials(storage.get_study_id_from_name(name)))
                lines.append(f'study "{name}" in the storage ({trials} trials)')
    if (remote := study_remote(study)) is not None:
        lines.append(f"{remote}, with all that is in it")
    return lines


def delete_study(study: Study, on_note: Callable[[str], None] = lambda note: None) -> None:
    """Deletes what `what_fresh_deletes` lists, and nothing else in the study folder.

    Workers that a lost sweep has left are stopped before. The fence remains, here and in the remote
    folder: one that comes back later may not write into the study that begins anew.

    Args:
        study: The study.
        on_note: Called with what is waited for.

    Raises:
        UserError: If a sweep is at the study, on whatever machine.
    """
    storage = _readable_storage(study)
    if storage is None:
        stop_workers(study, 0, on_note)
    else:
        lease = StudyLease(storage, study.name, on_note)
        with lease.kept():  # workers may be waited for
            lease.take()
            stop_workers(study, lease.fence, on_note)
        StudyLease(storage, study.name, on_note).take()
    delete_remote(study)
    if study.storage.url is not None and storage is not None:
        for name in study_names(study):
            if name in optuna.get_all_study_names(storage):
                optuna.delete_study(study_name=name, storage=storage)
    for pattern in _OWNED:
        for path in study.folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _readable_storage(study: Study) -> RDBStorage | None:
    """Returns the storage; None if the study's own is not there, or cannot be read any more."""
    if study.storage.url is not None:
        return None if study.tasks else open_storage(study)  # whose records are the tasks' own
    if not (study.folder / DATABASE).exists():
        return None
    try:
        return open_storage(study)
    except UserError:  # starting over is what its message tells people to do
        return None
