"""The teacher cache of a study: how large it gets, and filling it ahead."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from kdscale.data import Augmentation, TaskData, file_bytes, load_data, normalise, usable_bytes
from kdscale.errors import UserError
from kdscale.losses import METHODS, PairShapes
from kdscale.models import Network, create_model
from kdscale.outputs import LOGITS, Need
from kdscale.records import Value
from kdscale.search._cohort_job import default_device, threads
from kdscale.search._single import behind_cache
from kdscale.search._study import Study
from kdscale.training import Group, Teaching, kept_bytes, load_teacher

_SLICE_BATCHES = 16


@dataclass(frozen=True)
class CachePlan:
    """How large a study's teacher cache gets.

    Attributes:
        folder: The folder of all caches.
        images: Training images.
        views: Views of an image.
        entry_bytes: Bytes of one image's outputs under one view.
        full_bytes: Bytes of all images under all views.
        study_bytes: The most that a whole run of this study writes.
        quota_bytes: The quota of all caches in the folder.
        live: Why the teacher teaches live instead; empty if it does not.
    """

    folder: Path
    images: int
    views: int
    entry_bytes: int
    full_bytes: int
    study_bytes: int
    quota_bytes: int
    live: str = ""


def cache_plan(study: Study, data: TaskData, student: Network, teacher: Network) -> CachePlan:
    """Returns how large the study's teacher cache gets."""
    spec = study.task.teacher.cache
    images = len(data.train)
    views = Augmentation(data.augmentation, data.image_size).view_count
    needs = teacher_needs(study, data, student, teacher)
    size = kept_bytes(teacher.shapes, needs, spec.dtype)
    drawn = images * min(views, len(study.seed_list) * study.budget.epochs)
    live = ""
    if not spec.enabled:
        live = "task.teacher.cache.enabled is false"
    elif "tail" in needs:
        live = "a method runs a part of the teacher on the student's features"
    elif images * size > spec.quota:
        live = "the outputs of one epoch do not fit in the quota"
    return CachePlan(
        folder=study.cache_folder,
        images=images,
        views=views,
        entry_bytes=size,
        full_bytes=file_bytes(size, images * views, images * views),
        study_bytes=file_bytes(size, drawn, images * views),
        quota_bytes=spec.quota,
        live=live,
    )


def teacher_needs(
    study: Study, data: TaskData, student: Network, teacher: Network
) -> frozenset[Need]:
    """Returns what the study's methods ask of the teacher, at the ends of the search space."""
    labels = data.train.labels
    shapes = PairShapes(student.shapes, teacher.shapes, study.task.recipe.batch_size, labels)
    needs = LOGITS
    for values in ends(study):
        for term in study.resolve(values).terms:
            method = METHODS[term.method]
            if not method.refusal(shapes, term.hyperparameters):
                needs |= method.needs(shapes, term.hyperparameters).teacher
    return needs


def ends(study: Study) -> list[dict[str, Value]]:
    """Returns configurations that hold the lowest and the highest value of each parameter."""
    lowest = {axis.name: axis.draw(0.0) for axis in study.axes}
    highest = {axis.name: axis.draw(1.0 - 1e-9) for axis in study.axes}
    return [lowest, highest]


def fill_cache(study: Study, processes: int | None = None) -> Iterator[tuple[int, int]]:
    """Yields how many of all (image, view) pairs are done, until all are in the cache.

    What is there already is read and not computed again, so that filling can be stopped and
    continued, and a sweep may run meanwhile.

    Args:
        study: The study; its teacher has been trained.
        processes: How many fill it; default: what this machine's CPUs serve, or 1 with a GPU.

    Raises:
        UserError: If the cache is off, or too large for its quota, or cannot be written.
    """
    filler = _Filler(study)
    plan = filler.plan
    if plan.live:
        raise UserError(f"--fill-cache: there must be a teacher cache to fill, but {plan.live}")
    if plan.full_bytes > usable_bytes(plan.quota_bytes):
        raise UserError(
            f"task.teacher.cache.quota must be at least {-(-plan.full_bytes * 8 // 7)} (the full "
            f"cache and an eighth of room), but got {plan.quota_bytes}"
        )
    if processes is None:
        cpus = len(os.sched_getaffinity(0)) // study.resources.cpus_per_worker
        processes = 1 if default_device().type == "cuda" else max(1, cpus)
    pairs = plan.images * plan.views
    starts = range(0, pairs, filler.rows * _SLICE_BATCHES)
    done = 0
    try:
        for count in _filled(study, filler, starts, processes):
            done = min(done + count, pairs)
            yield done, pairs
    finally:
        filler.teaching.close()


def _filled(study: Study, filler: _Filler, starts: Sequence[int], processes: int) -> Iterator[int]:
    filler.fill(0)  # the key's header comes first, once: the others read it
    yield 0
    if processes == 1:
        yield from map(filler.fill, starts)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_start, initargs=(study,)) as pool:
        try:
            yield from (f.result() for f in as_completed([pool.submit(_fill, s) for s in starts]))
        finally:
            pool.shutdown(cancel_futures=True)


class _Filler:
    def __init__(self, study: Study) -> None:
        threads(study)
        self._data = data = load_data(study.task.data)
        self._group = group = Group(device=default_device())
        self._recipe = study.task.recipe
        self._augmentation = Augmentation(data.augmentation, data.image_size)
        network = load_teacher(study.task.teacher, data, study.teacher_folder).to(group.device)
        student = _student(study, data)
        self._needs = teacher_needs(study, data, student, network)
        self.plan = cache_plan(study, data, student, network)
        self.rows = self._recipe.batch_size // study.resources.workers
        self.teaching = Teaching(behind_cache(study, network, data), self._recipe, data, group)
        self.teaching.keep(self._needs)

    def fill(self, start: int) -> int:
        """Computes what is absent of a slice, and returns its number of pairs."""
        stop = min(start + self.rows * _SLICE_BATCHES, self.plan.images * self.plan.views)
        for first in range(start, stop, self.rows):
            self._fill_batch(first)
        if problem := self.teaching.problem:
            raise UserError(f"the teacher cache must be there to fill, but: {problem}")
        return stop - start

    def _fill_batch(self, first: int) -> None:
        # Always whole batches, as in training: the last one goes on from the first pair.
        pairs = torch.arange(first, first + self.rows) % (self.plan.images * self.plan.views)
        indices, codes = pairs % self.plan.images, pairs // self.plan.images
        raw = self._data.train.gather(indices).to(self._group.device)
        images = self._augmentation.apply(raw, codes.to(self._group.device))
        images = normalise(images, self._data.mean, self._data.std)
        if self._recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        self.teaching.teach(images, indices, codes, self._needs)


_filler: _Filler | None = None
"""Of a process that fills slices."""


def _start(study: Study) -> None:
    global _filler
    _filler = _Filler(study)


def _fill(start: int) -> int:
    assert _filler is not None
    return _filler.fill(start)


def _student(study: Study, data: TaskData) -> Network:
    spec = study.task.student
    return create_model(
        spec.model, data.num_classes, image_size=data.image_size, args=spec.args, seed=0
    )
