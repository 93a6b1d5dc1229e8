"""What a Ray worker runs: one cohort, alone in its process or with others through Ray Train.

A job is plain data, so it can travel; the study and the paths travel with it. Data and teacher
are loaded once a process: Ray Tune reuses its actors from cohort to cohort.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from kdscale.data import DataSpec, TaskData, fingerprint, load_data
from kdscale.errors import UserError
from kdscale.models import Network
from kdscale.records import Value
from kdscale.search._mailbox import Report
from kdscale.search._rungs import Halving
from kdscale.search._study import Study
from kdscale.training import (
    CachedTeacher,
    Cohort,
    Group,
    InferenceForm,
    Member,
    Progress,
    Row,
    cached_teacher,
    in_form,
    keep_freed_memory,
    load_network,
    train_cohort,
)


@dataclass(frozen=True)
class Job:
    """One cohort to train.

    Attributes:
        cohort: Its name.
        seed: Its seed.
        members: By trial, the configuration's values; None for an undistilled student.
        ended: Histories of members that ended before: rungs compare with them.
    """

    cohort: str
    seed: int
    members: Mapping[str, Mapping[str, Value] | None]
    ended: Mapping[str, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a study's jobs find what they share.

    Attributes:
        study: The study, its teacher's form settled.
        folder: The study folder, absolute: the same path on every node.
        teacher: The teacher's file in it, named by a hash of its contents.
        cache: The folder of the teacher caches, absolute; None for the live teacher.
    """

    study: Study
    folder: Path
    teacher: Path
    cache: Path | None = None


def run_job(job: Job, place: Place, group: Group) -> Iterator[list[Progress]]:
    """Yields the progress of a cohort's trials, epoch by epoch.

    Raises:
        UserError: If data, teacher or recipe cannot be used.
    """
    study = place.study
    data = _data(study.task.data)
    members = tuple(_member(name, values, place) for name, values in job.members.items())
    distils = any(member.terms for member in members)
    teacher: Network | CachedTeacher | None = None
    if distils:
        form, size = study.task.teacher.form, data.image_size
        load = partial(_teacher, place.teacher, form, data.num_classes, size, group.device)
        teacher = load() if place.cache is None else _behind_cache(load, place, place.cache)
    stop = None
    if study.rungs is not None and distils:
        stop = Halving(study.rung_epochs, study.rungs.eta, study.metric.name, study.metric.goal)
    cohort = Cohort(
        model=study.task.student,
        members=members,
        seed=job.seed,
        epochs=study.budget.epochs,
        stop=stop,
        ended=job.ended,
        per_trial_seconds=study.budget.per_trial_seconds,
    )
    yield from train_cohort(cohort, data, teacher, group)


def tune_job(config: Mapping[str, Any], place: Place) -> None:
    """Runs a job of one worker in the process of Ray Tune's actor."""
    from ray import tune

    job = Job(**config)
    threads(place.study)
    group = Group(device=default_device())
    for report in reports(job, place, group):
        tune.report(report)


def reports(job: Job, place: Place, group: Group) -> Iterator[Report]:
    """Yields what the driver is told; an error is told rather than raised, which keeps the actor.

    With several workers it is raised, because the others may be waiting for this one.
    """
    try:
        for progress in run_job(job, place, group):
            yield {"cohort": job.cohort, "progress": [asdict(part) for part in progress]}
    except Exception as error:
        if group.size > 1:
            raise
        refused = isinstance(error, UserError)
        told = {"refused": str(error)} if refused else {"crashed": traceback.format_exc(limit=-3)}
        yield {"cohort": job.cohort, **told}


def threads(study: Study) -> None:
    """Gives torch as many threads as a worker has CPUs: results depend on their number."""
    keep_freed_memory()
    torch.set_num_threads(study.resources.cpus_per_worker)


def default_device() -> torch.device:
    """Returns the GPU that this process sees, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _member(name: str, values: Mapping[str, Value] | None, place: Place) -> Member:
    folder = place.folder / "trials" / name
    if values is None:
        return Member(name, 1.0, (), place.study.task.recipe, folder)
    resolved = place.study.resolve(values)
    return Member(
        name,
        resolved.ce_weight,
        resolved.terms,
        resolved.recipe,
        folder,
        resolved.ce_start_epoch,
    )


def _behind_cache(load: Callable[[], Network], place: Place, folder: Path) -> CachedTeacher:
    task = place.study.task
    name = place.teacher.stem
    return cached_teacher(load, task.teacher, name, _fingerprint(task.data), folder)


@lru_cache(maxsize=1)
def _fingerprint(spec: DataSpec) -> str:
    return fingerprint(_data(spec).train)


@lru_cache(maxsize=1)
def _data(spec: DataSpec) -> TaskData:
    return load_data(spec)


@lru_cache(maxsize=1)
def _teacher(
    path: Path, form: InferenceForm, num_classes: int, image_size: int, device: torch.device
) -> Network:
    network = load_network(path, num_classes, image_size)
    return in_form(network.to(device).requires_grad_(False), form, image_size)
