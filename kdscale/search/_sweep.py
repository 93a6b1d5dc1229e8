"""A sweep: from the study to what it still misses, through Ray Tune, and back into the study."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdscale.data import load_data
from kdscale.errors import UserError
from kdscale.files import DiskFullError
from kdscale.records import TrialRecord
from kdscale.search._attempts import losses
from kdscale.search._cluster import joined_cluster, may_grow
from kdscale.search._cohort_job import Place, tune_job
from kdscale.search._cohort_lease import Fence
from kdscale.search._cohort_size import CohortSize, resources_key
from kdscale.search._fences import known_fence
from kdscale.search._form import settled_by_ledger
from kdscale.search._lease import StudyLease, sweep_lock
from kdscale.search._ledger import Ledger, open_ledger
from kdscale.search._queue import CohortQueue
from kdscale.search._quota import Quota
from kdscale.search._remote import claim_remote, close_backup, study_backup
from kdscale.search._remote_lease import RemoteFence
from kdscale.search._resources import lanes, worker_bundle
from kdscale.search._single import train_teacher
from kdscale.search._storage import open_storage
from kdscale.search._study import Study
from kdscale.search._tune import tune_cohorts
from kdscale.search._watching import Watching
from kdscale.training import (
    Backup,
    Progress,
    content_hash,
    load_teacher,
    store_teacher,
    trained_teacher_path,
    weights_path,
)


class Listener(Protocol):
    """Whoever wants to see a sweep while it runs."""

    def on_teacher(self, progress: Progress) -> None:
        """Takes an epoch of the teacher's training."""

    def on_start(self, ledger: Ledger, cohorts_at_once: int) -> None:
        """Takes the study as the sweep finds it."""

    def on_change(self, trial: TrialRecord) -> None:
        """Takes a trial that has changed."""

    def on_size(self, size: CohortSize) -> None:
        """Takes how many trials train together, when that is known or changes."""

    def on_note(self, text: str) -> None:
        """Takes what the user must know."""

    def trouble(self) -> str:
        """Returns what has not been taken where the sweep is recorded as well, or nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        ledger: The study.
        trained: Whether anything was trained.
        complete: Whether every planned trial has ended.
        stopped: Why the sweep ended before that, if it did.
    """

    ledger: Ledger
    trained: bool
    complete: bool
    stopped: str = ""

    @property
    def losses(self) -> str:
        """How many attempts the study has lost to what, in a line; empty if none."""
        return losses((*self.ledger.trials, *self.ledger.controls))


def sweep(study: Study, listener: Listener) -> Outcome:
    """Trains what the study still misses, and returns how that ended.

    Calling it again continues: after Ctrl-C, after SIGKILL, after ``budget.trials`` was raised.

    Raises:
        UserError: If the study, the cluster, the data or the teacher cannot be used; what has
            been trained by then is recorded.
        KeyboardInterrupt: After Ctrl-C; what has been trained by then is recorded.
    """
    with sweep_lock(study.folder), leased(study, listener.on_note) as (ledger, number):
        write_study_file(ledger.study)
        with (
            _backed_up(study, listener.on_note) as backup,
            _fence(study.folder.absolute(), number, backup) as fence,
        ):
            return _sweep(study, ledger, fence, backup, listener)


def _sweep(
    study: Study, ledger: Ledger, fence: Fence, backup: Backup | None, listener: Listener
) -> Outcome:
    quota = Quota(ledger, backup, listener.on_note)

    def on_change(trial: TrialRecord) -> None:
        listener.on_change(trial)
        quota.on_change(trial)

    queue = CohortQueue(ledger, on_change=on_change, on_size=listener.on_size, leases=fence)
    if queue.complete:
        return Outcome(ledger, trained=False, complete=True)
    fence.reap(listener.on_note)
    watching = Watching(ledger, listener.on_note, listener.trouble)
    with watching, joined_cluster() as nodes:
        cohorts_at_once = watching.lanes = lanes(study.resources, nodes, may_grow)
        watching.doing = "the teacher is prepared"
        teacher = _prepare_teacher(study, ledger, listener.on_teacher, backup, fence.number)
        settled = settled_by_ledger(study, ledger, teacher)
        listener.on_start(ledger, cohorts_at_once)
        queue.open(cohorts_at_once, resources_key(study, nodes))
        cache = study.cache_folder.absolute() if study.task.teacher.cache.enabled else None
        shown = settled.without_passwords()
        folder = study.folder.absolute()
        place = Place(shown, folder, teacher.absolute(), cache, fence.number)
        try:
            with watching.cluster(queue) as watch:
                tune_cohorts(_trainable(place), queue, watch, folder / "ray")
        except KeyboardInterrupt:
            queue.end_attempts()
            raise
        stopped = "" if queue.complete else "stopped by Ctrl-C or SIGTERM"
        watching.ended = queue.refused or queue.stopped or stopped or "complete"
    queue.end_attempts()
    if queue.refused:
        raise UserError(queue.refused)
    if not queue.complete and not queue.stopped:
        raise KeyboardInterrupt  # Ray Tune took Ctrl-C for itself, and ended quietly
    return Outcome(ledger, trained=True, complete=queue.complete, stopped=queue.stopped)


@contextmanager
def _backed_up(study: Study, on_note: Callable[[str], None]) -> Iterator[Backup | None]:
    """Gives the study's backup, and at the end tells what is not uploaded."""
    claim_remote(study)
    backup = study_backup(study, study.folder.absolute())
    try:
        yield backup
    finally:
        if backup is not None and (left := close_backup(backup)):
            on_note(left)


@contextmanager
def _fence(folder: Path, number: int, backup: Backup | None) -> Iterator[Fence]:
    """Gives the fence behind which all workers of earlier sweeps are, wherever they train."""
    if backup is None:
        yield Fence(folder, number)
        return
    elsewhere = RemoteFence(backup.remote)
    try:
        yield Fence(folder, number, elsewhere)
    finally:
        elsewhere.close()


def write_study_file(study: Study) -> None:
    """Writes the study's file into its folder, from which the study can be taken up.

    Raises:
        UserError: If that cannot be written.
    """
    path = study.folder / "study.yaml"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(study.to_yaml(place=False), encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise UserError(f"{path}: must be a file to write, but: {error.strerror}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def leased(study: Study, on_note: Callable[[str], None]) -> Iterator[tuple[Ledger, int]]:
    """Gives the study's ledger and the number of this sweep, with nobody else at the study."""
    lease = StudyLease(open_storage(study), study.name, on_note, above=known_fence(study))
    with lease.kept():
        lease.take()
        ledger = open_ledger(study, create=True)
        lease.take()  # the study may be new
        ledger.guard(lease.guard, lease.lost_at)
        yield ledger, lease.fence
    ledger.guard(None)


def _trainable(place: Place) -> Any:
    """Returns what Ray Tune runs for a cohort."""
    from ray import tune

    resources = place.study.resources
    if resources.workers == 1:
        # The cheap path: the cohort trains in Tune's own actor, which the next cohort reuses.
        trainable = tune.with_parameters(tune_job, place=place)
        return tune.with_resources(trainable, worker_bundle(resources))
    from kdscale.search._lane import WarmLane

    # The actor only drives a lane of workers. It asks for no CPU, so drivers never keep one
    # from workers; a sliver of the head node keeps them there.
    trainable = tune.with_parameters(WarmLane, place=place)
    return tune.with_resources(trainable, {"CPU": 0, "node:__internal_head__": 0.001})


def _prepare_teacher(
    study: Study,
    ledger: Ledger,
    on_teacher: Callable[[Progress], None],
    backup: Backup | None = None,
    fence: int = 0,
) -> Path:
    """Returns the study's one file of the teacher, trained first if the study says so."""
    data = load_data(study.task.data)
    spec = study.task.teacher
    kept = ledger.teacher
    if kept is not None and kept.exists() and not weights_path(spec, study.teacher_folder).exists():
        return kept  # the study has moved to where its teacher's own file is not
    trained = trained_teacher_path(study.teacher_folder)
    if spec.weights is None and not _is_here(trained, backup):
        for progress in _train_teacher_on_cluster(study, fence):
            on_teacher(progress)
            if progress.status == "failed":
                raise UserError(f"the teacher failed: {progress.reason}")
        _is_here(trained, backup)
    network = load_teacher(spec, data, study.teacher_folder)
    ledger.save_teacher(content_hash(network.state_dict()))
    try:
        path = store_teacher(network, spec, data.num_classes, study.folder)
    except DiskFullError as error:
        raise UserError(
            f"storage.folder: must have room for the study's teacher, but {error} (make room; the "
            "same command continues)"
        ) from error
    if backup is not None:
        backup.save(path)
        backup.settle()
    return path


def _is_here(path: Path, backup: Backup | None) -> bool:
    """Returns whether a file of the study folder is there, fetched if it is elsewhere."""
    return path.exists() if backup is None else backup.fetch(path.absolute())


def _train_teacher_on_cluster(study: Study, fence: int) -> Iterator[Progress]:
    """Yields the teacher's progress, trained by one worker with a trial's resources."""
    import ray

    bundle = worker_bundle(study.resources)
    remote = ray.remote(num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0))(train_teacher)
    for reference in remote.remote(_anchored(study), fence):
        try:
            yield ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):  # Ray's own text is a traceback
                raise error.cause from None
            raise


def _anchored(study: Study) -> Study:
    """Returns the study for a Ray worker, which has another working directory and no passwords."""
    folder = study.storage.folder.absolute()
    study = study.without_passwords()
    return study.model_copy(update={"storage": study.storage.model_copy(update={"folder": folder})})
