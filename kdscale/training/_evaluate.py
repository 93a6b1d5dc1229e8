"""Accuracy and loss of networks on a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from kdscale.data import Split, TaskData, normalise
from kdscale.models import Network
from kdscale.training._group import Group
from kdscale.training._transfer import to_device

_BATCH_SIZE = 256


@dataclass(frozen=True)
class Score:
    """One network's score on a split.

    Attributes:
        accuracy: Top-1 accuracy in percent.
        loss: Mean cross-entropy in nats.
    """

    accuracy: float
    loss: float


def evaluate(
    networks: Sequence[Network], split: Split, data: TaskData, group: Group | None = None
) -> list[Score]:
    """Returns the score of each network on the whole split, each image seen once.

    Batches are dealt out to the workers and the sums gathered, so every worker returns the same.

    Args:
        networks: Networks on the group's device; each is put into eval mode and back.
        split: Images and labels.
        data: The task's data, for mean and standard deviation.
        group: The workers; None for this process alone on the networks' device.
    """
    if not networks:
        return []
    group = group or Group(device=next(networks[0].parameters()).device)
    sums = torch.zeros(len(networks), 2, dtype=torch.float64, device=group.device)
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    batches = torch.split(torch.arange(len(split)), _BATCH_SIZE)
    with torch.inference_mode():
        for indices in batches[group.rank :: group.size]:
            raw = to_device(split.gather(indices), group.device)
            images = normalise(raw, data.mean, data.std)
            target = to_device(split.labels[indices], group.device)
            for row, network in enumerate(networks):
                logits = network(images).float()
                sums[row, 0] += (logits.argmax(dim=1) == target).sum()
                sums[row, 1] += F.cross_entropy(logits, target, reduction="sum").double()
    for network, mode in zip(networks, modes, strict=True):
        network.train(mode)
    totals = (group.sum(sums) / len(split)).tolist()
    return [Score(100.0 * correct, loss) for correct, loss in totals]
