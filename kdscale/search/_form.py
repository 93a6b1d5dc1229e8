"""The form in which a study's teacher teaches: settled once, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from kdscale.data import TaskData, load_data
from kdscale.models import Network
from kdscale.search._cohort_job import default_device
from kdscale.search._ledger import Ledger
from kdscale.search._resources import worker_bundle
from kdscale.search._study import Study
from kdscale.training import (
    HASH_LETTERS,
    FormChoice,
    InferenceForm,
    content_hash,
    form_path,
    load_network,
    measured_form,
    settled,
    teacher_identity,
)


def with_form(study: Study, form: InferenceForm) -> Study:
    """Returns the study with its teacher's form settled."""
    teacher = study.task.teacher.model_copy(update={"inference": form})
    return study.model_copy(update={"task": study.task.model_copy(update={"teacher": teacher})})


def settled_here(study: Study, network: Network, data: TaskData, *own: Path) -> Study:
    """Returns the study with its teacher's form settled, if need be by measuring in this process.

    Args:
        study: The study.
        network: Its teacher in the plain form.
        data: The task's data.
        own: Files that know the choice, or are to know it, beside the one of the teacher caches.
    """
    if study.task.teacher.inference != "auto":
        return study
    name = content_hash(network.state_dict())[:HASH_LETTERS]
    choice = _choice(study, network, name, data, study.cache_folder, own)
    return with_form(study, choice.form)


def settled_by_ledger(study: Study, ledger: Ledger, teacher: Path) -> Study:
    """Returns the study with its teacher's form settled: as its ledger knows, or learns now.

    It is measured where cohorts run: with GPUs by one of Ray's workers, else in this process.

    Args:
        study: The study.
        ledger: Its ledger.
        teacher: The study's one file of the teacher.
    """
    if study.task.teacher.inference != "auto":
        return study
    choice = ledger.form
    if choice is None:
        choice = _choice_on_cluster(study, teacher.absolute(), study.cache_folder.absolute())
        ledger.save_form(choice)
    return with_form(study, choice.form)


def settled_on_cluster(study: Study, teacher: Path, caches: Path) -> Study:
    """Returns the study with its teacher's form settled, as the teacher caches know or learn now.

    Args:
        study: The study.
        teacher: The study's one file of the teacher, absolute.
        caches: The folder of the teacher caches, absolute.
    """
    if study.task.teacher.inference != "auto":
        return study
    return with_form(study, _choice_on_cluster(study, teacher, caches).form)


def _choice_on_cluster(study: Study, teacher: Path, caches: Path) -> FormChoice:
    measure = partial(_choice_for, study, teacher, caches)
    return _on_a_worker(study, measure) if study.resources.gpus_per_worker else measure()


def _on_a_worker(study: Study, measure: partial[FormChoice]) -> FormChoice:
    import ray

    bundle = worker_bundle(study.resources)
    remote = ray.remote(num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0))(measure.func)
    choice: FormChoice = ray.get(remote.remote(*measure.args))
    return choice


def _choice_for(study: Study, teacher: Path, caches: Path) -> FormChoice:
    data = load_data(study.task.data)
    network = load_network(teacher, data.num_classes, data.image_size)
    return _choice(study, network, teacher.stem, data, caches)


def _choice(
    study: Study,
    network: Network,
    name: str,
    data: TaskData,
    caches: Path,
    own: Sequence[Path] = (),
) -> FormChoice:
    task, device = study.task, default_device()
    identity = teacher_identity(task.teacher, name)
    shared = form_path(caches, identity, data, task.recipe.precision, device)

    def measure() -> FormChoice:
        rows = task.recipe.batch_size // study.resources.workers
        threads = torch.get_num_threads()
        torch.set_num_threads(study.resources.cpus_per_worker)
        try:
            return measured_form(network, task.recipe, data, rows, device)
        finally:
            torch.set_num_threads(threads)

    return settled([*own, shared], measure)
