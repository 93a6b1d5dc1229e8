"""What the host sends to the device while it goes on."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the host's on the device.

    A GPU takes it from pinned memory, so that the host waits for neither the copy nor what runs.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
