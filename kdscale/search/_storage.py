"""Where a study's record lies: Optuna's storage, its two studies in it, and the study's file."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import SQLAlchemyError

from kdscale.errors import UserError
from kdscale.search._cohort_size import CohortSize
from kdscale.search._continue import check_same_study
from kdscale.search._patient import PatientStorage
from kdscale.search._study import Study
from kdscale.search._versions import git_commit, versions

DATABASE = "study.db"


class _Connection(sqlite3.Connection):
    """A connection that waits for the disk at checkpoints of the log only, not at every commit.

    A process may die at any moment and loses nothing that it has committed. When the machine loses
    power, the last commits may be gone, together and in order: the study stands as it stood some
    seconds earlier, and a sweep goes on from there.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA synchronous=NORMAL")


def open_storage(study: Study) -> RDBStorage:
    """Returns Optuna's storage of the study: SQLite in its folder, or what the study names.

    Raises:
        UserError: If it cannot be opened.
    """
    if study.storage.url is not None:
        try:
            return RDBStorage(study.storage.url)
        except (SQLAlchemyError, ImportError, RuntimeError) as error:
            # The URL may hold a password: the message leaves it out.
            why = str(error).partition("\n")[0]
            raise UserError(f"storage.url: must be a database to use, but: {why}") from error
    database = study.folder / DATABASE
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
        options = {"timeout": 60, "factory": _Connection}
        return PatientStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": options})
    except (OSError, sqlite3.Error, SQLAlchemyError, RuntimeError) as error:
        raise UserError(f"{database}: must be a study's database, but: {error}") from error


def forget_if_untrained(study: Study, storage: BaseStorage) -> None:
    """Deletes a study that has trained nothing under another file, so that files may be mended."""
    names = [name for name in study_names(study) if name in optuna.get_all_study_names(storage)]
    ids = [storage.get_study_id_from_name(name) for name in names]
    known = [storage.get_study_user_attrs(number).get("study") for number in ids[:1]]
    if not known or known == [_definition(study)]:
        return
    trials = [trial for number in ids for trial in storage.get_all_trials(number, deepcopy=False)]
    if any(trial.intermediate_values or trial.state.is_finished() for trial in trials):
        return
    for number in ids:
        storage.delete_study(number)
    shutil.rmtree(study.folder / "trials", ignore_errors=True)


def _definition(study: Study) -> str:
    """Returns the study as JSON, without where it lies: that may change, and hold a password.

    So may what has no effect of the teacher cache. The plain teacher is left out as well: studies
    that began before there was a choice go on with it.
    """
    teacher = study.task.teacher
    exclude: Any = {
        "storage": True,
        "tracking": True,
        "task": {
            "teacher": {
                "cache": teacher.cache.without_effect,
                "inference": teacher.inference == "plain",
            }
        },
    }
    return json.dumps(study.model_dump(mode="json", exclude=exclude))


def study_names(study: Study) -> tuple[str, str]:
    """Returns the names of the two Optuna studies: the searched trials' and the controls'."""
    return study.name, f"{study.name}/undistilled"


def open_study(storage: BaseStorage, study: Study, *, control: bool) -> int:
    """Returns the storage's id of the study, made when missing and compared when there."""
    name = study_names(study)[control]
    if name not in optuna.get_all_study_names(storage):
        minimize = study.metric.goal == "minimize"
        direction = StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE
        study_id = storage.create_new_study([direction], name)
        storage.set_study_user_attr(study_id, "versions", versions())
        storage.set_study_user_attr(study_id, "commit", git_commit())
    else:
        study_id = storage.get_study_id_from_name(name)
    if not control:
        attributes = storage.get_study_user_attrs(study_id)
        wanted = _definition(study)
        if "study" in attributes:
            check_same_study(json.loads(attributes["study"]), json.loads(wanted), study.folder)
        if attributes.get("study") != wanted:
            storage.set_study_user_attr(study_id, "study", wanted)
    return study_id


def known_cohort_size(study: Study) -> CohortSize | None:
    """Returns how many trials train together, if a sweep has measured that; writes nothing."""
    if study.storage.url is None and not (study.folder / DATABASE).exists():
        return None
    storage = open_storage(study)
    if study.name not in optuna.get_all_study_names(storage):
        return None
    attributes = storage.get_study_user_attrs(storage.get_study_id_from_name(study.name))
    text = attributes.get("cohort_size")
    return CohortSize.from_json(text) if text else None
