"""A study's remote folder: opened for it alone, brought up to date, and read where files lack."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

from kdscale.errors import UserError
from kdscale.files import Remote, patiently
from kdscale.records import TrialRecord
from kdscale.search._remote_lease import FENCE_NAME
from kdscale.search._storage import open_storage
from kdscale.search._study import Study
from kdscale.training import Backup, student_path

_ID = "study.id"
_ATTRIBUTE = "remote_id"
_BEFORE = "remote_id_before"
_PATIENCE_SECONDS = 30.0


def study_remote(study: Study) -> Remote | None:
    """Returns the study's folder on the remote filesystem, if it has one."""
    uri = study.storage.remote
    return None if uri is None else Remote(uri).below(study.name)


@contextmanager
def reaching(remote: Remote) -> Iterator[None]:
    """Makes a user's error of what keeps its block from a remote folder."""
    try:
        yield
    except OSError as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"storage.remote: {remote} must be a folder to read and write, but: {why}"
        ) from error


def cache_remote(study: Study) -> Remote | None:
    """Returns the folder of the teacher caches on the remote filesystem, if there is one."""
    uri = study.storage.remote
    return None if uri is None else Remote(uri).below(".cache/teachers")


def study_backup(study: Study, folder: Path) -> Backup | None:
    """Returns the backup of a study folder, one in this process; None without a remote folder.

    Args:
        study: The study.
        folder: The study folder, absolute.
    """
    remote = study_remote(study)
    return None if remote is None else _backup(remote.uri, folder)


@lru_cache(maxsize=1)
def _backup(uri: str, folder: Path) -> Backup:
    backup = Backup(Remote(uri), folder)
    backup.catch_up()
    return backup


def close_backup(backup: Backup) -> str:
    """Returns what is not uploaded yet, after a while of waiting for it; empty if all is."""
    backup.catch_up()
    left = backup.close(_PATIENCE_SECONDS)
    _backup.cache_clear()
    if not left:
        return ""
    named = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
    return (
        f"{backup.remote} lacks {len(left)} files or trials ({named}): they are in the study "
        "folder, and the next sweep uploads them"
    )


def claim_remote(study: Study) -> None:
    """Returns if the study's remote folder can be used, and is this study's own.

    The study is in its storage by now. Each claim changes the id by which it knows its folder, so
    that of two copies of a study one alone goes on with the remote folder: the first to claim it.

    Raises:
        UserError: If not.
    """
    remote = study_remote(study)
    if remote is None:
        return
    storage = open_storage(study)
    number = storage.get_study_id_from_name(study.name)
    attributes = storage.get_study_user_attrs(number)
    own = {attributes[key] for key in (_ATTRIBUTE, _BEFORE) if attributes.get(key)}
    with reaching(remote):
        patiently(remote.check, _PATIENCE_SECONDS)
        known = (remote.get(_ID) or b"").decode()
        if known in own or not remote.sizes("trials"):
            new = uuid.uuid4().hex
            # The folder has one of the two at every moment, also after a kill in between.
            storage.set_study_user_attr(number, _BEFORE, known)
            storage.set_study_user_attr(number, _ATTRIBUTE, new)
            patiently(partial(remote.put, new.encode(), _ID), _PATIENCE_SECONDS)
            return
    raise UserError(
        f"storage.remote: {remote} must be new or this study's own, but holds another study "
        f"called {study.name} (use another name or folder, or --fresh, which deletes it)"
    )


def delete_remote(study: Study) -> None:
    """Deletes the study's remote folder, but its fence: workers that are lost may come back.

    Raises:
        UserError: If that cannot be done.
    """
    remote = study_remote(study)
    if remote is None:
        return
    try:
        for name in remote.sizes().keys() - {FENCE_NAME}:
            patiently(partial(remote.delete, name), _PATIENCE_SECONDS)
    except OSError as error:
        raise UserError(f"storage.remote: {remote} could not be deleted: {error}") from error


def fetch_students(study: Study, trials: Iterable[TrialRecord]) -> None:
    """Fetches the students of finished trials that another node has trained.

    Raises:
        UserError: If the remote folder cannot be reached.
    """
    remote = study_remote(study)
    if remote is None:
        return
    folder = study.folder.absolute()
    backup = Backup(remote, folder)
    for trial in trials:
        if trial.state == "done" and trial.student:
            backup.fetch(student_path(folder / "trials" / trial.name))
