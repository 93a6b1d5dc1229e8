"""Which images CRD compares an image with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Mode = Literal["exact", "relax", "unlabelled"]


class CandidateSampler(nn.Module):
    """Draws the images that CRD compares each image of a batch with.

    Args:
        labels: Labels of the training split, int64 ``[n]``.
        mode: ``exact`` takes the image itself for the positive and images of other classes for
            negatives; ``relax`` takes any image of its class for the positive; ``unlabelled``
            takes the image itself, and any other image for a negative.

    Source:
        RepDistiller ``dataset/cifar100.py`` (``exact``, ``relax``), and the paper's sampling of
        x_j with j ≠ i (``unlabelled``). Negatives are drawn uniformly **with** replacement for each
        image, as the authors' ImageNet code does, and their CIFAR code where K exceeds the images
        of other classes; elsewhere their CIFAR code draws without.
    """

    def __init__(self, labels: Tensor, mode: Mode) -> None:
        super().__init__()
        self.mode = mode
        counts = labels.bincount()
        self.labels: Tensor
        self.order: Tensor
        self.counts: Tensor
        self.starts: Tensor
        # The labels of the task are no part of a checkpoint.
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("order", labels.argsort(stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)

    def forward(self, index: Tensor, negatives: int, generator: torch.Generator) -> Tensor:
        """Returns the positive and the negatives of each image, int64 ``[B, negatives + 1]``.

        Args:
            index: The images' numbers in the training split, int64 ``[B]``.
            negatives: K, how many negatives an image gets.
            generator: Source of random numbers, on the device of ``index``.
        """
        shape = (len(index), negatives + 1)
        # So wide a range that the remainder is as good as uniform.
        draws = torch.randint(2**62, shape, generator=generator, device=index.device)
        own = self.labels[index].unsqueeze(1)
        start, count = self.starts[own], self.counts[own]
        positive = index.unsqueeze(1)
        if self.mode == "relax":
            positive = self.order[start + draws[:, :1] % count]
        if self.mode == "unlabelled":
            others = draws[:, 1:] % (len(self.labels) - 1)
            others = others + (others >= index.unsqueeze(1))
        else:
            places = draws[:, 1:] % (len(self.labels) - count)
            others = self.order[torch.where(places < start, places, places + count)]
        return torch.cat([positive, others], dim=1)
