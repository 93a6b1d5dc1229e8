"""What a step must cost: its data, its teacher pass and one student's step, each on its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from cohort_bench.setting import BATCH_SIZE, RECIPE, SEED, Setting, configuration
from kdscale.data import Augmentation, epoch_order, normalise
from kdscale.losses import ldrld
from kdscale.models import inference_form

_REPEATS = 3


class Parts(NamedTuple):
    """Seconds of one batch.

    Attributes:
        data: Gathering, augmenting and normalising it.
        teacher: The teacher's logits, in the faster of its plain and its inference-only form.
        student: A student's forward pass, losses, backward pass and SGD.
    """

    data: float
    teacher: float
    student: float


def parts(setting: Setting) -> Parts:
    """Returns the medians of a few repetitions, one thread."""
    torch.set_num_threads(1)
    task = setting.data()
    augmentation = Augmentation(task.augmentation, task.image_size)
    teacher, student = setting.teacher_network(task), setting.student_network(task).train()
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    teacher, student = teacher.to(memory_format=layout), student.to(memory_format=layout)
    folded = inference_form(teacher, task.image_size)
    image_format = folded.image_format or torch.contiguous_format
    optimizer = torch.optim.SGD(student.parameters(), **RECIPE)
    indices = epoch_order(len(task.train), SEED, 1)[:BATCH_SIZE]
    target = task.train.labels[indices]

    def batch() -> torch.Tensor:
        codes = augmentation.views(SEED, 1, indices)
        images = augmentation.apply(task.train.gather(indices), codes, indices)
        return normalise(images, task.mean, task.std).contiguous(memory_format=layout)

    images = batch()

    @torch.no_grad()
    def teach() -> torch.Tensor:
        return teacher(images)

    @torch.no_grad()
    def teach_folded() -> torch.Tensor:
        return folded(images.contiguous(memory_format=image_format))

    logits = teach()

    def learn() -> None:
        own = student(images)
        loss = F.cross_entropy(own, target) + ldrld(own, logits, **configuration(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Parts(_median(batch), min(_median(teach), _median(teach_folded)), _median(learn))


def _median(call: Callable[[], object]) -> float:
    call()  # the first call sets up what later ones reuse
    taken = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
