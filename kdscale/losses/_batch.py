"""What a term sees of one training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdscale.outputs import Outputs


@dataclass(frozen=True)
class Batch:
    """One step as a term sees it: this worker's part, or the global batch if it couples it.

    Attributes:
        student: The student's outputs.
        teacher: The teacher's outputs, without gradient.
        target: Labels, int64 ``[B]``; of dense networks ``[B, H, W]``, -1 where there is none.
        index: The images' numbers in the training split, int64 ``[B]``; None outside training.
        epoch: The epoch, from 1.
        epochs: Epochs of a full trial.
        key: Seed of this term's random numbers in this step, the same on all workers.
        first: Place of the first image in the global batch.
        whole: Images in the global batch; None if this is all of it.
        student_2: The student's outputs for the second view; None if the term has not asked.
        teacher_2: The teacher's outputs for the second view.
    """

    student: Outputs
    teacher: Outputs
    target: Tensor
    index: Tensor | None = None
    epoch: int = 1
    epochs: int = 1
    key: int = 0
    first: int = 0
    whole: int | None = None
    student_2: Outputs | None = None
    teacher_2: Outputs | None = None

    def generator(self) -> torch.Generator:
        """Returns a generator on the batch's device, in the same state on all workers."""
        return torch.Generator(self.target.device).manual_seed(self.key)

    def normal(self, *shape: int) -> Tensor:
        """Returns standard normal noise ``[B, *shape]``, float32.

        It is drawn for the global batch, so that an image gets the same noise however many workers
        share the batch. A second call returns the same numbers.
        """
        whole = self.whole or len(self.target)
        noise = torch.randn(whole, *shape, generator=self.generator(), device=self.target.device)
        return noise[self.first : self.first + len(self.target)]

    def uniform(self, *shape: int) -> Tensor:
        """Returns noise ``[B, *shape]`` as `normal` does, uniform in [0, 1)."""
        whole = self.whole or len(self.target)
        noise = torch.rand(whole, *shape, generator=self.generator(), device=self.target.device)
        return noise[self.first : self.first + len(self.target)]
