"""How a term's weight changes over the epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ScheduleKind = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """The factor on a term's weight, a function of the epoch alone.

    Attributes:
        kind: From 1 at the first epoch to ``final_factor`` at the last: at once none of the way
            (constant), along a line, or along half a cosine.
        final_factor: The factor at the last epoch, >= 0; without effect if constant.
        warmup_epochs: Epoch e of the first w multiplies by e / w as well, as in mdistiller.
        start_epoch: The first epoch with this term, from 1; the warm-up counts from it.
        stop_epoch: The last epoch with this term; 0 for the last of all.
    """

    kind: ScheduleKind = "constant"
    final_factor: float = 0.0
    warmup_epochs: int = 0
    start_epoch: int = 1
    stop_epoch: int = 0

    def broken_rule(self) -> str:
        """Returns the rule that ``stop_epoch`` breaks, or an empty string."""
        if self.stop_epoch and self.stop_epoch < self.start_epoch:
            return f"must be >= start_epoch ({self.start_epoch}), or 0"
        return ""

    def factor(self, epoch: int, epochs: int) -> float:
        """Returns the factor for an epoch, 0 outside the term's epochs.

        Args:
            epoch: The epoch, from 1.
            epochs: Epochs of a full trial.
        """
        last = self.stop_epoch or epochs
        if not self.start_epoch <= epoch <= last:
            return 0.0
        since = epoch - self.start_epoch
        warm = min((since + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        if self.kind == "constant":
            return warm
        progress = since / max(last - self.start_epoch, 1)
        if self.kind == "cosine":
            progress = 0.5 * (1.0 - math.cos(math.pi * progress))
        return warm * (1.0 + (self.final_factor - 1.0) * progress)
