"""Where a study's record lies: Optuna's storage, its two studies in it, and the study's file."""

from __future__ import annotations

import json
import shutil
from typing import Any

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection

from kdscale.search._cohort_size import CohortSize
from kdscale.search._continue import check_same_study
from kdscale.search._database import own_storage, shared_storage
from kdscale.search._study import Study
from kdscale.search._versions import check_format, git_commit, record_format, versions

DATABASE = "study.db"


def open_storage(study: Study) -> RDBStorage:
    """Returns Optuna's storage of the study: SQLite in its folder, or what the study names.

    Raises:
        UserError: If it cannot be opened, or holds the study in a format of a later kdscale.
    """
    url = study.storage.url
    storage = own_storage(study.folder / DATABASE) if url is None else shared_storage(url)
    number = find_study(storage, study.name)
    if number is not None:
        check_format(storage.get_study_user_attrs(number), str(study.folder))
    return storage


def find_study(storage: BaseStorage, name: str) -> int | None:
    """Returns the storage's id of a study, or None if it has none of this name."""
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        return None


def has_begun(study: Study) -> bool:
    """Returns whether there is a record of the study; writes nothing."""
    if study.storage.url is None:
        return (study.folder / DATABASE).exists()
    return find_study(open_storage(study), study.name) is not None


def forget_if_untrained(study: Study, storage: BaseStorage) -> None:
    """Deletes a study that has trained nothing under another file, so that files may be mended."""
    found = [find_study(storage, name) for name in study_names(study)]
    ids = [number for number in found if number is not None]
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
    """Returns the study as JSON, without where it and its data lie: that may change.

    So may what has no effect of the teacher cache; the teacher is compared by content hash. The
    plain teacher is left out as well: studies that began before there was a choice go on with it.
    So are budgets of equal epochs.
    """
    teacher = study.task.teacher
    epochs = study.budget.match == "epochs"
    exclude: Any = {
        "storage": True,
        "tracking": True,
        "budget": {"match": epochs, "seconds": epochs},
        "task": {
            "data": {"root": True},
            "teacher": {
                "weights": True,
                "cache": teacher.cache.without_effect,
                "inference": teacher.inference == "plain",
            },
        },
    }
    return json.dumps(study.model_dump(mode="json", exclude=exclude))


def study_names(study: Study) -> tuple[str, str]:
    """Returns the names of the two Optuna studies: the searched trials' and the controls'."""
    return study.name, f"{study.name}/undistilled"


def open_studies(storage: BaseStorage, study: Study, *, create: bool) -> dict[bool, int]:
    """Returns the storage's ids of the study's two Optuna studies, by whether it is the controls'.

    Args:
        storage: The storage.
        study: The study, compared with what the storage says of it.
        create: Whether to make what is missing, and to record the study as it is now; else nothing
            is written, and one that is missing is left out.

    Raises:
        UserError: If the storage's study is another.
    """
    found = {control: _open_study(storage, study, control, create) for control in (False, True)}
    return {control: number for control, number in found.items() if number is not None}


def _open_study(storage: BaseStorage, study: Study, control: bool, create: bool) -> int | None:
    name = study_names(study)[control]
    study_id = find_study(storage, name)
    if study_id is None and create:
        study_id = _make_study(storage, study, name)
    if study_id is None:
        return None
    attributes = storage.get_study_user_attrs(study_id)
    wanted = _definition(study)
    if not control and "study" in attributes:
        check_same_study(json.loads(attributes["study"]), json.loads(wanted), study.folder)
    if create:
        for key, of in (("versions", versions), ("commit", git_commit), ("format", record_format)):
            if key not in attributes:  # a new study, or one whose making was cut short
                storage.set_study_user_attr(study_id, key, of())
        if not control and attributes.get("study") != wanted:
            storage.set_study_user_attr(study_id, "study", wanted)
    return study_id


def _make_study(storage: BaseStorage, study: Study, name: str) -> int:
    minimize = study.metric.goal == "minimize"
    direction = StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE
    try:
        return storage.create_new_study([direction], name)
    except DuplicatedStudyError:  # made by a try whose answer was lost
        return storage.get_study_id_from_name(name)


def known_cohort_size(study: Study) -> CohortSize | None:
    """Returns how many trials train together, if a sweep has measured that; writes nothing."""
    if study.storage.url is None and not (study.folder / DATABASE).exists():
        return None
    storage = open_storage(study)
    number = find_study(storage, study.name)
    if number is None:
        return None
    attributes = storage.get_study_user_attrs(number)
    text = attributes.get("cohort_size")
    return CohortSize.from_json(text) if text else None
