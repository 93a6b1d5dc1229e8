"""One student's step: a lesson in, losses and correct predictions out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdscale.losses import Objective
from kdscale.models import Network
from kdscale.outputs import Outputs


@dataclass(frozen=True)
class Lesson:
    """What all students of a cohort learn from in one step, on this worker.

    Attributes:
        images: Normalised images ``[B, 3, H, W]``.
        teacher: The teacher's outputs, or None without methods.
        target: Labels ``[B]``.
        index: The images' numbers in the training split ``[B]``.
        images_2: The second view of each image, if a method asks for it.
        teacher_2: The teacher's outputs for the second view.
        number: Number of the step in the epoch; of a timed trial, in all of its training.
    """

    images: Tensor
    teacher: Outputs | None
    target: Tensor
    index: Tensor
    images_2: Tensor | None
    teacher_2: Outputs | None
    number: int


class Step(nn.Module):
    """Network and objective: what is trained, saved and compiled together."""

    def __init__(self, network: Network, objective: Objective, *, bf16: bool) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self.bf16 = bf16

    def forward(
        self,
        lesson: Lesson,
        outputs: Outputs | None = None,
        *,
        key: int,
        first: int,
        whole: int,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the losses by name, and how many images are classified correctly.

        Args:
            lesson: The batch and what the teacher says to it.
            outputs: The network's outputs, if something else has computed them.
            key: Seed of the step's random numbers, the same on all workers.
            first: Place of this worker's first image in the global batch.
            whole: Images in the global batch.
        """
        needs = self.objective.student_needs
        second_view = None
        with torch.autocast(lesson.images.device.type, torch.bfloat16, enabled=self.bf16):
            if outputs is None:
                outputs = self.network.outputs(lesson.images, needs)
            if self.objective.second_view and lesson.images_2 is not None:
                second_view = self.network.outputs(lesson.images_2, needs), lesson.teacher_2
        losses = self.objective(
            outputs,
            lesson.teacher,
            lesson.target,
            index=lesson.index,
            second_view=second_view,
            key=key,
            first=first,
            whole=whole,
        )
        correct = (outputs.logits.detach().argmax(dim=1) == lesson.target).sum()
        return losses, correct
