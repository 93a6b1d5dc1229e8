"""What a command does with a study of several tasks: one task's study after the other, and all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kdscale.analysis import ReportPaths, TaskStudies, write_tasks_report
from kdscale.errors import UserError, did_you_mean
from kdscale.records import StudyRecord
from kdscale.search import (
    DATABASE,
    STUDY_FILE,
    Study,
    has_begun,
    open_ledger,
    read_yaml,
    sweep_lock,
    write_study_file,
)
from kdscale.workflow import finish


def task_of(study: Study, name: str | None) -> Study:
    """Returns the study of one task, or the study itself where it has no tasks.

    Args:
        study: The study.
        name: The task, as ``--task`` names it.

    Raises:
        UserError: If a task must be named and is not, or the study has none of this name.
    """
    names = [changes.name for changes in study.tasks]
    if not names:
        if name is not None:
            raise UserError(f"--task: must not be given, since {study.name} has no tasks")
        return study
    if name not in names:
        got = f', but got "{name}"' if name is not None else ""
        hint = did_you_mean(name or "", names) or f"for example --task {names[0]}"
        raise UserError(f"--task: must be one of {study.name}'s tasks{got}: {hint}")
    return study.studies[names.index(name)]


@contextmanager
def whole_study(study: Study) -> Iterator[None]:
    """Keeps a study of several tasks for this process, with its file in its folder.

    Raises:
        UserError: If another process is at it, or the folder holds a study of the other kind.
    """
    folder, file = study.folder, study.folder / STUDY_FILE
    if not study.tasks:
        if file.exists() and "tasks" in read_yaml(file).data:
            raise UserError(
                f"{folder}: holds a study of several tasks, but the study file has no tasks "
                "(use another name, or give one of the folders in it)"
            )
        yield
        return
    if (folder / DATABASE).exists():
        raise UserError(
            f"{folder}: holds a study without tasks, but the study file has tasks (use another "
            "name, or --fresh to start over)"
        )
    with sweep_lock(folder):
        write_study_file(study)
        yield


@contextmanager
def told_of(task: Study, whole: Study) -> Iterator[None]:
    """Says in an error which task it is about."""
    try:
        yield
    except UserError as error:
        if not whole.tasks:
            raise
        raise UserError(f"{task.name}: {error}") from error


def begun(study: Study) -> list[Study]:
    """Returns the studies of the tasks that have begun.

    Raises:
        UserError: If none has.
    """
    found = [task for task in study.studies if has_begun(task)]
    if not found:
        raise UserError(
            f"{study.folder}: there must be a study to read, but there is none "
            "(kdscale sweep makes it)"
        )
    return found


def finish_tasks(study: Study) -> tuple[ReportPaths, TaskStudies]:
    """Returns the report over all tasks, and the tasks; writes the tasks' own reports first.

    Reads the test set of each task whose chosen configuration has not been evaluated on it yet.
    """
    for task in begun(study):
        with told_of(task, study):
            finish(task, open_ledger(task, create=False))
    return report_tasks(study)


def report_tasks(study: Study) -> tuple[ReportPaths, TaskStudies]:
    """Returns the report over all tasks that have begun, and the tasks; reads no test set."""
    return _written(study, _records(study), 0.0)


def watch_tasks(study: Study, every_seconds: float) -> Iterator[ReportPaths]:
    """Yields the report's files each time they are written, until all planned trials have ended.

    As `kdscale.workflow.watch` does for one study: the test set is not read, and what is written
    last stays as it is. The tasks' own reports are not written.
    """
    records: dict[str, StudyRecord] = {}
    try:
        while not _over(study, records):
            records = _records(study)
            yield _written(study, records, every_seconds)[0]
            time.sleep(every_seconds)
    finally:
        report_tasks(study)


def _records(study: Study) -> dict[str, StudyRecord]:
    """Returns the tasks that have begun, by name."""
    return {_short(task): open_ledger(task, create=False).record() for task in begun(study)}


def _over(study: Study, records: dict[str, StudyRecord]) -> bool:
    """Returns whether all planned trials of all tasks have ended, as far as is known."""
    ended = {name: sum(t.has_ended for t in record.trials) for name, record in records.items()}
    return all(ended.get(_short(task), -1) >= task.trials for task in study.studies)


def _written(
    study: Study, records: dict[str, StudyRecord], refresh_seconds: float
) -> tuple[ReportPaths, TaskStudies]:
    names = [changes.name for changes in study.tasks]
    waiting = tuple(name for name in names if name not in records)
    whole = TaskStudies(study.name, records, waiting, study.to_yaml(place=False))
    return write_tasks_report(whole, study.folder, refresh_seconds=refresh_seconds), whole


def _short(task: Study) -> str:
    return task.name.rpartition("/")[2]
