"""What a Ray worker runs: one cohort, alone in its process or with others through Ray Train.

A job is plain data, so it can travel; the study and the paths travel with it. Data and teacher
are loaded once a process: Ray Tune reuses its actors from cohort to cohort.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from kdscale.data import DataSpec, TaskData, load_data
from kdscale.errors import UserError
from kdscale.models import Network
from kdscale.records import Value
from kdscale.search._rungs import Halving
from kdscale.search._study import Study
from kdscale.training import (
    Cohort,
    Group,
    Member,
    Progress,
    Row,
    keep_freed_memory,
    load_network,
    train_cohort,
)

Report = dict[str, Any]
"""What a job hands to Ray: the cohort's name and either progress or an error."""


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
        study: The study.
        folder: The study folder, absolute: the same path on every node.
        teacher: The teacher's file in it.
    """

    study: Study
    folder: Path
    teacher: Path


def run_job(job: Job, place: Place, group: Group) -> Iterator[list[Progress]]:
    """Yields the progress of a cohort's trials, epoch by epoch.

    Raises:
        UserError: If data, teacher or recipe cannot be used.
    """
    study = place.study
    data = _data(study.task.data)
    members = tuple(_member(name, values, place) for name, values in job.members.items())
    distils = any(member.terms for member in members)
    teacher = None
    if distils:
        teacher = _teacher(place.teacher, data.num_classes, data.image_size, group.device)
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
    for report in _reports(job, place, group):
        tune.report(report)


def tune_train_job(config: Mapping[str, Any], place: Place) -> None:
    """Runs a job of several workers: a Ray Train TorchTrainer, driven by Ray Tune's actor."""
    import ray.train
    from ray import tune
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from kdscale.search._resources import worker_bundle

    # Workers wait at every report until Train has looked at it: seconds, unless it looks often.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    resources = place.study.resources
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"job": dict(config), "place": place},
        torch_config=TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=worker_bundle(resources),
        ),
        run_config=ray.train.RunConfig(
            name=f"{config['cohort']}-{os.getpid()}",
            storage_path=str(place.folder / "ray"),
            callbacks=[TuneReportCallback()],
        ),
    )
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        tune.report({"cohort": config["cohort"], **_told_of_workers(error.worker_failures)})


def _train_worker(config: Mapping[str, Any]) -> None:
    import ray.train
    from ray.train.torch import get_device

    job, place = Job(**config["job"]), config["place"]
    threads(place.study)
    group = Group.current(get_device())
    for report in _reports(job, place, group):
        ray.train.report(report)


def _reports(job: Job, place: Place, group: Group) -> Iterator[Report]:
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


def _told_of_workers(failures: Mapping[int, Exception]) -> Report:
    """Returns what the driver is told when workers have raised, from Ray's error of each."""
    last_lines = []
    for rank, failure in sorted(failures.items()):
        cause = getattr(failure, "_base_exc", failure)  # Ray wraps what our code has raised
        if isinstance(cause, UserError):
            return {"refused": str(cause)}
        last_lines.append(f"worker {rank}: {type(cause).__name__}: {cause}".splitlines()[0])
    return {"crashed": "; ".join(last_lines)}


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


@lru_cache(maxsize=1)
def _data(spec: DataSpec) -> TaskData:
    return load_data(spec)


@lru_cache(maxsize=1)
def _teacher(path: Path, num_classes: int, image_size: int, device: torch.device) -> Network:
    network = load_network(path, num_classes, image_size)
    return network.to(device).requires_grad_(False)
