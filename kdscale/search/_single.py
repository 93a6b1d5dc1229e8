"""One trial in the foreground, without Ray: for a first look, and for debugging."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdscale.data import TaskData, fingerprint, load_data
from kdscale.models import Network
from kdscale.records import Value
from kdscale.search._axes import Axis
from kdscale.search._cohort_job import default_device, threads
from kdscale.search._cohort_lease import cohort_lease
from kdscale.search._folder import make_folder
from kdscale.search._form import settled_here
from kdscale.search._remote import study_backup, study_remote
from kdscale.search._study import Study
from kdscale.training import (
    HASH_LETTERS,
    CachedTeacher,
    Cohort,
    Group,
    Member,
    Progress,
    cached_teacher,
    content_hash,
    in_form,
    load_teacher,
    student_path,
    train_cohort,
    train_timed_cohort,
)
from kdscale.training import train_teacher as train_task_teacher


@dataclass(frozen=True)
class Single:
    """One trial to train in this process.

    Attributes:
        values: A value for each searched parameter.
        defaults: The parameters that nobody gave a value, and that took the baseline's or the
            method's default.
        seed: The seed.
        folder: Where its checkpoint and its student go.
    """

    values: Mapping[str, Value]
    defaults: tuple[str, ...]
    seed: int
    folder: Path

    @property
    def student(self) -> Path:
        """The trained student's file."""
        return student_path(self.folder)


def single_trial(study: Study, seed: int) -> Single:
    """Returns the trial of a study whose parameters are all fixed, or else at their defaults.

    A parameter that is still searched takes the value of ``search.baseline``, or else the default
    that it would have if it were not searched. The same trial has the same folder, so training that
    was stopped goes on; a trial of another task or length has another.

    Args:
        study: The study; overrides such as ``alpha=9`` have fixed what they name.
        seed: The seed.
    """
    values = dict(study.baseline or {})
    for axis in study.axes:
        values.setdefault(axis.name, axis.cast(_default(study, axis)))
    resolved = study.resolve(values)
    task = study.task.model_copy(update={"recipe": resolved.recipe}).model_dump_json(
        exclude={"teacher": {"cache": study.task.teacher.cache.without_effect}}
    )
    objective = [resolved.ce_weight, resolved.ce_start_epoch, repr(resolved.terms)]
    clock = [] if resolved.seconds is None else [resolved.seconds]
    identity = json.dumps([task, *objective, study.budget.epochs, *clock, seed])
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return Single(
        values, tuple(axis.name for axis in study.axes), seed, study.folder / "single" / key
    )


def train_single(study: Study, single: Single) -> Iterator[Progress]:
    """Yields the trial's progress, epoch by epoch; goes on from its checkpoint if there is one.

    Raises:
        UserError: If data, teacher or recipe cannot be used, a method refuses the pair, or the
            study folder cannot be written.
    """
    threads(study)
    data = load_data(study.task.data)
    group = Group(device=default_device())
    network = load_teacher(study.task.teacher, data, study.teacher_folder).to(group.device)
    make_folder(study.folder)
    study = settled_here(study, network, data, single.folder / "form.json")
    spec = study.task.teacher
    teacher = (
        behind_cache(study, network, data)
        if spec.cache.enabled
        else in_form(network, spec.form, data.image_size)
    )
    resolved = study.resolve(single.values)
    member = Member(
        single.folder.name,
        resolved.ce_weight,
        resolved.terms,
        resolved.recipe,
        single.folder,
        resolved.ce_start_epoch,
        seconds=resolved.seconds,
    )
    cohort = Cohort(study.task.student, (member,), single.seed, study.budget.epochs)
    train = train_cohort if resolved.seconds is None else train_timed_cohort
    for progress in train(cohort, data, teacher, group):
        yield progress[0]


def behind_cache(study: Study, network: Network, data: TaskData) -> CachedTeacher:
    """Returns a loaded teacher, its form settled, behind the study's teacher cache."""
    return cached_teacher(
        lambda: in_form(network, study.task.teacher.form, data.image_size),
        study.task.teacher,
        content_hash(network.state_dict())[:HASH_LETTERS],
        fingerprint(data.train),
        study.cache_folder,
    )


def train_teacher(study: Study, fence: int = 0) -> Iterator[Progress]:
    """Yields the progress of the study's own teacher, trained in this process, epoch by epoch.

    Args:
        study: The study.
        fence: The number of the sweep that asked for it; 0 without one.

    Raises:
        UserError: If data or recipe cannot be used, or the study folder cannot be written.
    """
    threads(study)
    right_labels = study.task.data.model_copy(update={"label_noise": 0.0})
    folder = study.folder.absolute()
    make_folder(study.folder)
    with cohort_lease(folder, fence, "teacher", ["teacher"], study_remote(study)):
        yield from train_task_teacher(
            study.task,
            load_data(right_labels),
            study.teacher_folder,
            epochs=study.budget.epochs,
            seed=study.seed_list[0],
            group=Group(device=default_device()),
            backup=study_backup(study, folder),
        )


def _default(study: Study, axis: Axis) -> Value:
    """Returns the value of a searched parameter as if it were not searched."""
    owner, name = axis.target.owner, axis.target.hyperparameter.name
    if owner == "":
        return study.objective.ce_weight
    if owner == "budget":
        return axis.target.hyperparameter.default
    if owner == "recipe":
        value = getattr(study.task.recipe, name)
        return axis.target.hyperparameter.default if value is None else value
    method = next(method for method in study.objective.methods if method.label == owner)
    return method.values[name]
