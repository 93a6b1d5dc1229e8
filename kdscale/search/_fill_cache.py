"""Filling the teacher cache ahead of a sweep, on all nodes of the cluster at once."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdscale.data import Augmentation, epoch_order, fingerprint, load_data, normalise
from kdscale.errors import UserError
from kdscale.models import Network, create_model
from kdscale.outputs import Need
from kdscale.search._cache_plan import cache_plan, teacher_needs
from kdscale.search._cluster import joined_cluster, may_grow
from kdscale.search._cohort_job import default_device, threads
from kdscale.search._form import settled_on_cluster
from kdscale.search._remote import cache_remote
from kdscale.search._resources import lanes, worker_bundle
from kdscale.search._study import Study
from kdscale.training import (
    Group,
    Teaching,
    cached_teacher,
    in_form,
    load_network,
    load_teacher,
    store_teacher,
)

_SLICE_BATCHES = 16
_FOLDER_ID = "folder-id"
_RETRIES = 3


@dataclass(frozen=True)
class Filled:
    """How far filling a cache has come.

    Attributes:
        pairs: (image, view) pairs to fill, summed over folders.
        done: How many have been looked at, and computed if they were absent.
        kept: How many of these are in the cache; fewer only if the quota is full.
        folders: How many folders are filled: 1, or one a node where nodes share none.
    """

    pairs: int
    done: int
    kept: int
    folders: int


@dataclass(frozen=True)
class Task:
    """What every worker is told.

    Attributes:
        study: The study, its teacher's form settled.
        teacher: The teacher's file in the study folder, absolute.
        folder: The folder of the caches, absolute.
        needs: The outputs to keep.
    """

    study: Study
    teacher: Path
    folder: Path
    needs: frozenset[Need]


def fill_cache(study: Study, *, all_views: bool = False) -> Iterator[Filled]:
    """Yields how far it has come, until all that fits is in the cache.

    Takes the worker bundles of the cluster that RAY_ADDRESS names, or of this machine. What is
    there already is read and not computed again, so that filling can be stopped and continued,
    and a sweep may run meanwhile. It ends early when the quota is full.

    Args:
        study: The study; its teacher has been trained.
        all_views: Whether to fill all views of each image, for other seeds and longer studies,
            after those that this study's seeds and epochs ask for.

    Raises:
        UserError: If the cache is off, or an epoch too large for its quota, or it cannot be
            written.
    """
    task, pairs = prepared(study, all_views=all_views)
    with joined_cluster() as nodes:
        task = replace(task, study=settled_on_cluster(study, task.teacher, task.folder))
        alone = study.resources.model_copy(update={"workers": 1})
        yield from _filled(task, pairs, lanes(alone, nodes, may_grow))


def prepared(study: Study, *, all_views: bool) -> tuple[Task, Tensor]:
    """Returns what every worker is told, and the pairs to fill, see `asked_pairs`.

    Raises:
        UserError: If there is no cache to fill, or no teacher.
    """
    data = load_data(study.task.data)
    spec = study.task.teacher
    network = load_teacher(spec, data, study.teacher_folder)
    student = create_model(
        study.task.student.model,
        data.num_classes,
        image_size=data.image_size,
        args=study.task.student.args,
        seed=0,
    )
    plan = cache_plan(study, data, student, network)
    if plan.live:
        raise UserError(f"--fill-cache: there must be a teacher cache to fill, but {plan.live}")
    teacher = store_teacher(network, spec, data.num_classes, study.folder)
    needs = teacher_needs(study, data, student, network)
    augmentation = Augmentation(data.augmentation, data.image_size)
    pairs = asked_pairs(study, augmentation, plan.images, all_views=all_views)
    return Task(study, teacher.absolute(), plan.folder.absolute(), needs), pairs


def asked_pairs(
    study: Study, augmentation: Augmentation, images: int, *, all_views: bool
) -> Tensor:
    """Returns the pairs in the order in which a sweep asks for them first, int64 ``[n]``.

    A pair is the image's number times the count of views, plus the view's number.

    Args:
        study: Its seeds, epochs and batch size say what a sweep asks for.
        augmentation: Draws the views.
        images: Number of training images.
        all_views: Whether all others come after these.
    """
    views, batch_size = augmentation.view_count, study.task.recipe.batch_size
    absent = torch.ones(images * views, dtype=torch.bool)
    found = []
    for epoch in range(1, study.budget.epochs + 1):
        for seed in study.seed_list:
            order = epoch_order(images, seed, epoch)[: images // batch_size * batch_size]
            indices = order.sort().values  # neighbours on the disk are written together
            pairs = indices * views + augmentation.views(seed, epoch, indices)
            found.append(pairs[absent[pairs]])
            absent[pairs] = False
    if all_views:
        found.append(torch.nonzero(absent)[:, 0])
    return torch.cat(found)


def _filled(task: Task, pairs: Tensor, workers: int) -> Iterator[Filled]:
    """Hands slices to workers as they come free; nodes that share no folder get all slices each.

    Workers that have no place before the others are done are not waited for.
    """
    import ray

    bundle = worker_bundle(task.study.resources)
    remote = ray.remote(
        num_cpus=bundle["CPU"],
        num_gpus=bundle.get("GPU", 0),
        scheduling_strategy="SPREAD",
        max_restarts=_RETRIES,
        max_task_retries=_RETRIES,
    )(Filler)
    slices = torch.split(pairs, task.study.task.recipe.batch_size * _SLICE_BATCHES)
    fillers = [remote.remote(task) for _ in range(min(workers, len(slices)))]
    starting = {filler.folder_id.remote(): filler for filler in fillers}
    busy: dict[Any, tuple[Any, str, int]] = {}
    left: dict[str, deque[Tensor]] = {}
    done = kept = 0
    while busy or (starting and (not left or any(left.values()))):
        [ready], _ = ray.wait([*starting, *busy], num_returns=1)
        if ready in starting:
            filler, folder = starting.pop(ready), _result(ready)
            left.setdefault(folder, deque(slices))
        else:
            filler, folder, count = busy.pop(ready)
            in_cache = _result(ready)
            done, kept = done + count, kept + in_cache
            if in_cache < count:
                left[folder].clear()  # the quota is full
        if left[folder]:
            part = left[folder].popleft()
            busy[filler.fill.remote(part)] = filler, folder, len(part)
        yield Filled(len(pairs) * len(left), done, kept, len(left))
    for closed in [filler.close.remote() for filler in fillers if filler not in starting.values()]:
        _result(closed)
    for filler in fillers:
        ray.kill(filler)


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):  # Ray's own text is a traceback
            raise error.cause from None
        raise


class Filler:
    """One worker: an actor that keeps data, and the teacher once it was needed."""

    def __init__(self, task: Task) -> None:
        study = task.study
        threads(study)
        self._folder = task.folder
        self._data = data = load_data(study.task.data)
        self._recipe = study.task.recipe
        self._augmentation = Augmentation(data.augmentation, data.image_size)
        self._device = default_device()
        self._needs = task.needs
        self._rows = self._recipe.batch_size // study.resources.workers

        def load() -> Network:
            network = load_network(task.teacher, data.num_classes, data.image_size)
            network = network.to(self._device).requires_grad_(False)
            return in_form(network, study.task.teacher.form, data.image_size)

        source = cached_teacher(
            load,
            study.task.teacher,
            task.teacher.stem,
            fingerprint(data.train),
            task.folder,
            cache_remote(study),
        )
        self._teaching = Teaching(source, self._recipe, data, Group(device=self._device))
        self._teaching.keep(task.needs)

    def folder_id(self) -> str:
        """Returns what tells the folder of the caches from one of the same path elsewhere."""
        path = self._folder / _FOLDER_ID
        draft = path.with_name(f".{_FOLDER_ID}.{uuid.uuid4().hex}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(draft.suffix)
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
            return path.read_text()
        except OSError as error:
            raise UserError(
                f"task.teacher.cache.folder must be a folder that can be written, but: {error}"
            ) from error

    def fill(self, pairs: Tensor) -> int:
        """Computes what is absent of a slice, and returns how many of its pairs are kept then."""
        counts = self._teaching.counts
        before = counts.hits + counts.kept
        padded = -(-len(pairs) // self._rows) * self._rows
        whole = pairs[torch.arange(padded) % len(pairs)]  # as in training: no smaller batches
        for batch in torch.split(whole, self._rows):
            self._fill_batch(batch)
        if problem := self._teaching.problem:
            raise UserError(f"the teacher cache must be there to fill, but: {problem}")
        return min(counts.hits + counts.kept - before, len(pairs))

    def close(self) -> None:
        """Closes the cache, and carries what is new to the remote folder, if there is one."""
        self._teaching.close()

    def _fill_batch(self, pairs: Tensor) -> None:
        views = self._augmentation.view_count
        indices, codes = pairs // views, pairs % views
        raw = self._data.train.gather(indices).to(self._device)
        codes_there, indices_there = codes.to(self._device), indices.to(self._device)
        images = self._augmentation.apply(raw, codes_there, indices_there)
        images = normalise(images, self._data.mean, self._data.std)
        if self._recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        self._teaching.teach(images, indices, codes, self._needs)
