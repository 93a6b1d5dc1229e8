"""What a Ray worker runs: a leg of one cohort, alone in its process or with others.

A job is plain data, so it can travel; the study and the paths travel with it. Data and teacher
are loaded once a process: Ray Tune reuses its actors from cohort to cohort.
"""

from __future__ import annotations

import os
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from kdscale.data import DataSpec, TaskData, fingerprint, load_data
from kdscale.errors import UserError
from kdscale.models import Network
from kdscale.records import Value
from kdscale.search._attempts import this_node
from kdscale.search._cohort_lease import cohort_lease
from kdscale.search._mailbox import Report
from kdscale.search._remote import cache_remote, study_backup
from kdscale.search._remote_lease import LEASES
from kdscale.search._study import Study
from kdscale.training import (
    CachedTeacher,
    Cohort,
    Group,
    InferenceForm,
    Measured,
    Member,
    Progress,
    cached_teacher,
    give_back_memory,
    in_form,
    keep_freed_memory,
    load_network,
    measure_cohorts,
    memory_share,
    out_of_memory,
    train_cohort,
    train_timed_cohort,
)

_TEACHER_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Job:
    """One cohort to train for one leg: to the next rung, or to the last epoch.

    Attributes:
        cohort: Its name.
        seed: Its seed.
        members: By trial, the configuration's values; None for an undistilled student.
        until: The last epoch of the leg.
        measure: Whether to measure what cohorts of these members cost, instead of training them.
        told: Epochs of each member that the study knows already.
    """

    cohort: str
    seed: int
    members: Mapping[str, Mapping[str, Value] | None]
    until: int
    measure: bool = False
    told: int = 0


@dataclass(frozen=True)
class Place:
    """Where a study's jobs find what they share.

    Attributes:
        study: The study, its teacher's form settled.
        folder: The study folder, absolute: the same path on every node.
        teacher: The teacher's file in it, named by a hash of its contents.
        cache: The folder of the teacher caches, absolute; None for the live teacher.
        fence: The number of the sweep, see `kdscale.search._cohort_lease`; 0 without one.
    """

    study: Study
    folder: Path
    teacher: Path
    cache: Path | None = None
    fence: int = 0


def run_job(job: Job, place: Place, group: Group) -> Iterator[list[Progress]]:
    """Yields the progress of a cohort's trials, epoch by epoch.

    Raises:
        UserError: If data, teacher or recipe cannot be used.
    """
    backup = study_backup(place.study, place.folder)
    if backup is not None:  # this node may have a study folder of its own, and an empty one
        (place.folder / LEASES).mkdir(parents=True, exist_ok=True)
    fence = place.fence if group.rank == 0 else 0  # who writes the checkpoints
    remote = None if backup is None else backup.remote
    with cohort_lease(place.folder, fence, job.cohort, job.members, remote) as check:
        timed = place.study.budget.match == "wall_clock"
        train = train_timed_cohort if timed else train_cohort
        yield from train(*_prepared(job, place, group), group, backup, check)


def measure_job(job: Job, place: Place, group: Group) -> Iterator[Measured]:
    """Yields what cohorts of the members cost, by ascending size; trains none of the trials.

    The teacher is live: behind a cache the first size would pay for it, and the others nothing.

    Raises:
        UserError: If data, teacher or recipe cannot be used.
    """
    yield from measure_cohorts(*_prepared(job, replace(place, cache=None), group), group)


def _prepared(
    job: Job, place: Place, group: Group
) -> tuple[Cohort, TaskData, Network | CachedTeacher | None]:
    study = place.study
    data = _data_here(study.task.data)
    _take_teacher(place)
    members = tuple(_member(name, job, place) for name in job.members)
    teacher: Network | CachedTeacher | None = None
    if any(member.terms for member in members):
        form, size = study.task.teacher.form, data.image_size
        load = partial(_teacher, place.teacher, form, data.num_classes, size, group.device)
        teacher = load() if place.cache is None else _behind_cache(load, place, place.cache)
    cohort = Cohort(
        model=study.task.student,
        members=members,
        seed=job.seed,
        epochs=study.budget.epochs,
        until=job.until or None,
        per_trial_seconds=study.budget.per_trial_seconds,
    )
    return cohort, data, teacher


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
        if job.measure:
            memory_bytes = memory_share(group.device, _part_of_device(place.study, group.device))
            for row in measure_job(job, place, group):
                # In a list: Ray Tune flattens nested dicts on the way.
                yield {"measured": [asdict(row)], "memory_bytes": memory_bytes}
        else:
            about = {"cohort": job.cohort, "node": this_node(), "images": _images(place.study)}
            for progress, heard in _with_warnings(run_job(job, place, group)):
                report: Report = {**about, "progress": [asdict(part) for part in progress]}
                yield report | ({"warnings": heard} if heard else {})
    except Exception as error:
        if group.size > 1:
            raise
        told = told_of(error)
    else:
        return
    # The error is gone by now, and with it all that its traceback held.
    give_back_memory(group.device)
    yield {"cohort": job.cohort, **told}


def _images(study: Study) -> int:
    """Returns the training images of an epoch; 0 where an epoch is not counted in images."""
    if study.budget.match == "wall_clock":
        return 0
    batch = study.task.recipe.batch_size
    return len(_data_here(study.task.data).train) // batch * batch


def _with_warnings(
    progress: Iterator[list[Progress]],
) -> Iterator[tuple[list[Progress], list[str]]]:
    """Yields progress with what kdscale has warned of since the last; it is shown as before too."""
    while True:
        heard: list[str] = []
        show = warnings.showwarning

        def hear(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            *place: Any,
            to: list[str] = heard,
            show: Callable[..., None] = show,
            **how: Any,
        ) -> None:
            if category is RuntimeWarning and "kdscale" in Path(filename).parts:
                to.append(str(message))
            show(message, category, filename, *place, **how)

        warnings.showwarning = hear
        try:
            told = next(progress, None)
        finally:
            warnings.showwarning = show
        if told is None:
            return
        yield told, heard


def told_of(error: BaseException) -> Report:
    """Returns what the driver is told of an error."""
    if out_of_memory(error):
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"crashed": detail, "reason": "out of memory"}
    if isinstance(error, UserError):
        return {"refused": str(error)}
    return {"crashed": "".join(traceback.format_exception(error, limit=-3))}


def threads(study: Study) -> None:
    """Gives torch as many threads as a worker has CPUs: results depend on their number."""
    keep_freed_memory()
    torch.set_num_threads(study.resources.cpus_per_worker)


def default_device() -> torch.device:
    """Returns the GPU that this process sees, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _part_of_device(study: Study, device: torch.device) -> float:
    """Returns the part of a device's memory that a worker may fill, by what it takes of it."""
    resources = study.resources
    if device.type == "cuda":
        return min(1.0, resources.gpus_per_worker or 1.0)
    return min(1.0, resources.cpus_per_worker / len(os.sched_getaffinity(0)))


def _member(name: str, job: Job, place: Place) -> Member:
    folder = place.folder / "trials" / name
    values = job.members[name]
    if values is None:
        recipe, seconds = place.study.task.recipe, place.study.budget.seconds
        return Member(name, 1.0, (), recipe, folder, told=job.told, seconds=seconds)
    resolved = place.study.resolve(values)
    return Member(
        name,
        resolved.ce_weight,
        resolved.terms,
        resolved.recipe,
        folder,
        resolved.ce_start_epoch,
        job.told,
        resolved.seconds,
    )


def _behind_cache(load: Callable[[], Network], place: Place, folder: Path) -> CachedTeacher:
    task = place.study.task
    name = place.teacher.stem
    remote = cache_remote(place.study)
    return cached_teacher(load, task.teacher, name, _fingerprint(task.data), folder, remote)


def _data_here(spec: DataSpec) -> TaskData:
    """Returns the data, or says on which node it is amiss: the driver has loaded it already."""
    try:
        return _data(spec)
    except UserError as error:
        raise UserError(f"{error} (on {socket.gethostname()})") from error


def _take_teacher(place: Place) -> None:
    """Returns when the teacher's file is on this node, which shows that it shares the study."""
    backup = study_backup(place.study, place.folder)
    there = (
        place.teacher.exists()
        if backup is None
        else backup.fetch(place.teacher, _TEACHER_PATIENCE_SECONDS)
    )
    if not there:
        raise UserError(
            f"storage.folder: must be a folder that all nodes share, but {socket.gethostname()} "
            f"has no {place.teacher} (or set storage.remote)"
        )


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
