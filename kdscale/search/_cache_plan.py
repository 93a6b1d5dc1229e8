"""The teacher cache of a study: how large it gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdscale.data import Augmentation, TaskData, file_bytes
from kdscale.losses import METHODS, PairShapes
from kdscale.models import Network
from kdscale.outputs import LOGITS, Need
from kdscale.records import Value
from kdscale.search._study import Study
from kdscale.training import kept_bytes


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
        what_students_see: What is not as the teacher computes it; empty if all is.
    """

    folder: Path
    images: int
    views: int
    entry_bytes: int
    full_bytes: int
    study_bytes: int
    quota_bytes: int
    live: str = ""
    what_students_see: str = ""


def cache_plan(study: Study, data: TaskData, student: Network, teacher: Network) -> CachePlan:
    """Returns how large the study's teacher cache gets."""
    spec = study.task.teacher.cache
    images = len(data.train)
    augmentation = Augmentation(data.augmentation, data.image_size)
    views = augmentation.view_count
    needs = teacher_needs(study, data, student, teacher)
    size = kept_bytes(teacher.shapes, needs, spec.dtype, spec.top_k)
    drawn = images * min(views, len(study.seed_list) * study.budget.epochs)
    live = ""
    if not spec.enabled:
        live = "task.teacher.cache.enabled is false"
    elif not augmentation.finite:
        live = "no view comes again (random_resized_crop.stored_crops would bound them)"
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
        what_students_see=spec.what_students_see,
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
