"""What a study will cost, and whether its configurations can be trained at all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from kdscale.data import Augmentation, TaskData, load_data, normalise
from kdscale.errors import UserError, about
from kdscale.losses import METHODS, PairShapes
from kdscale.models import Network, count_parameters, create_model, multiply_accumulates
from kdscale.search._axes import COMPUTE
from kdscale.search._cache_plan import CachePlan, cache_plan, ends
from kdscale.search._cohort_size import expected_size
from kdscale.search._files_plan import FilesPlan, files_plan
from kdscale.search._plan import controls, cost, generations
from kdscale.search._storage import known_cohort_size
from kdscale.search._study import Study
from kdscale.training import ModelSpec, load_teacher

_TIMED_STEPS = 3


@dataclass(frozen=True)
class NetworkFacts:
    """One network's size.

    Attributes:
        name: Its name in the study file, with arguments.
        parameters: Number of parameters.
        macs: Multiply-accumulates of one forward pass of one image.
    """

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Check:
    """What `kdscale check` shows.

    Attributes:
        teacher: The teacher.
        student: The student.
        train_images: Images an epoch.
        validation_images: Images that trials are compared on.
        student_epochs: Epochs of training, summed over trials and controls.
        without_rungs: The same if no rung dropped anything.
        teacher_epochs: Epochs of teacher passes.
        cohort_size: Trials that train together at most.
        cohort_why: What decided that.
        generations: Times that configurations are asked for.
        cpu_hours: Expected hours of one worker on this machine, from a few timed steps; where
            budgets are seconds, at most so many: what cohorts share is paid once.
        refused: Configurations at the ends of the search space that a method refuses, and why.
        cache: The teacher cache's size.
        files: The size of checkpoints and students.
    """

    teacher: NetworkFacts
    student: NetworkFacts
    train_images: int
    validation_images: int
    student_epochs: int
    without_rungs: int
    teacher_epochs: int
    cohort_size: int
    cohort_why: str
    generations: int
    cpu_hours: float
    refused: tuple[str, ...]
    cache: CachePlan | None = None
    files: FilesPlan | None = None


def check(study: Study) -> Check:
    """Returns what a study would train and cost, from a few timed steps on this machine.

    Loads training and validation data, builds both networks and reads the teacher's weights if
    they are there; trains nothing, downloads nothing and writes nothing.

    Raises:
        UserError: If data, networks or the teacher's weights cannot be had, or an epoch has not
            one batch.
    """
    data = load_data(study.task.data)
    batch_size, images = study.task.recipe.batch_size, len(data.train)
    if batch_size > images:
        raise UserError(
            f"task.recipe.batch_size must be at most the number of training images ({images}), "
            f"but got {batch_size}"
        )
    teacher = _teacher(study, data)
    with about("task.student"):
        student = _network(study.task.student, data)
    size, why = expected_size(study, known_cohort_size(study))
    costs = cost(study, size)
    student_seconds, teacher_seconds = _epoch_seconds(study, data, student, teacher)
    seconds = costs.student_epochs * student_seconds + costs.teacher_epochs * teacher_seconds
    if study.budget.seconds is not None:
        seconds = _budgeted_seconds(study) * costs.student_epochs / costs.without_rungs
    return Check(
        teacher=_facts(study.task.teacher, teacher, data),
        student=_facts(study.task.student, student, data),
        train_images=images,
        validation_images=len(data.validation),
        student_epochs=costs.student_epochs,
        without_rungs=costs.without_rungs,
        teacher_epochs=costs.teacher_epochs,
        cohort_size=size,
        cohort_why=why,
        generations=generations(study),
        cpu_hours=seconds / 3600.0,
        refused=tuple(_refusals(study, student, teacher, data)),
        cache=cache_plan(study, data, student, teacher),
        files=files_plan(study, data, student, teacher),
    )


def _network(spec: ModelSpec, data: TaskData) -> Network:
    return create_model(
        spec.model, data.num_classes, image_size=data.image_size, args=spec.args, seed=0
    )


def _teacher(study: Study, data: TaskData) -> Network:
    if study.task.teacher.weights in (None, "timm"):
        with about("task.teacher"):
            return _network(study.task.teacher, data)
    return load_teacher(study.task.teacher, data, study.teacher_folder)


def _facts(spec: ModelSpec, network: Network, data: TaskData) -> NetworkFacts:
    args = ", ".join(f"{name}={value}" for name, value in spec.args.items())
    name = f"{spec.model} ({args})" if args else spec.model
    macs = multiply_accumulates(network, data.image_size)
    return NetworkFacts(name, count_parameters(network), macs)


def _epoch_seconds(
    study: Study, data: TaskData, student: Network, teacher: Network
) -> tuple[float, float]:
    """Returns the seconds of one student's epoch and of one epoch of teacher passes."""
    batch_size = study.task.recipe.batch_size
    indices = torch.arange(batch_size)
    augmentation = Augmentation(data.augmentation, data.image_size)
    codes = augmentation.views(0, 1, indices)
    images = augmentation.apply(data.train.gather(indices), codes, indices)
    inputs = normalise(images, data.mean, data.std)
    target = data.train.labels[indices]
    teacher.eval()

    def train() -> None:
        torch.autograd.backward(torch.nn.functional.cross_entropy(student(inputs), target))

    def teach() -> None:
        with torch.no_grad():
            teacher(inputs)

    threads = torch.get_num_threads()
    torch.set_num_threads(study.resources.cpus_per_worker)
    steps = len(data.train) // batch_size
    seconds = _median_seconds(train) * steps, _median_seconds(teach) * steps
    torch.set_num_threads(threads)
    return seconds


def _budgeted_seconds(study: Study) -> float:
    """Returns the seconds of all trials and controls, if each spends its own."""
    assert study.budget.seconds is not None
    mean = 1.0
    for axis in study.axes:
        if axis.target.name == COMPUTE:
            count = axis.count or 0
            tried = [axis.value(number) for number in range(count)] or [axis.low, axis.high]
            mean = statistics.fmean(map(float, tried))
    return study.budget.seconds * (mean * study.trials + len(controls(study)))


def _median_seconds(step: Callable[[], None]) -> float:
    step()  # the first one allocates
    taken = []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _refusals(study: Study, student: Network, teacher: Network, data: TaskData) -> list[str]:
    """Returns why methods refuse the ends of the search space, each reason once."""
    batch_size = study.task.recipe.batch_size
    shapes = PairShapes(student.shapes, teacher.shapes, batch_size, data.train.labels)
    reasons: dict[str, None] = {}
    for values in ends(study):
        for term in study.resolve(values).terms:
            if why := METHODS[term.method].refusal(shapes, term.hyperparameters):
                reasons[f"{term.name}: {why}"] = None
    return list(reasons)
