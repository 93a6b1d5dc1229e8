"""How a term's weight changes over the epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ScheduleKind = Literal["constant", "linear", "cosine", "steps"]


@dataclass(frozen=True)
class Schedule:
    """The factor on a term's weight, a function of the epoch alone.

    Attributes:
        kind: ``constant`` stays at 1; ``linear`` and ``cosine`` go from 1 at the first epoch to
            ``final_factor`` at the last; ``steps`` takes its factors from ``steps``.
        final_factor: The factor at the last epoch of linear and cosine, >= 0.
        warmup_epochs: Epoch e of the first w multiplies by e / w as well, as in mdistiller.
        start_epoch: The first epoch with this term, from 1; the warm-up counts from it.
        stop_epoch: The last epoch with this term; 0 for the last of all.
        steps: Epochs and the factors from these on, as in "1 0.1 10 1": 0.1 from the first epoch
            and 1 from the tenth on; 0 before the first.
    """

    kind: ScheduleKind = "constant"
    final_factor: float = 0.0
    warmup_epochs: int = 0
    start_epoch: int = 1
    stop_epoch: int = 0
    steps: str = "1 1"

    def broken_rule(self) -> tuple[str, str] | None:
        """Returns the field that does not fit the others and the rule that it breaks, or None."""
        if self.stop_epoch and self.stop_epoch < self.start_epoch:
            return "stop_epoch", f"must be >= start_epoch ({self.start_epoch}), or 0"
        epochs, factors = self._steps()
        ascending = epochs == sorted(set(epochs)) and all(epoch == int(epoch) for epoch in epochs)
        if len(epochs) != len(factors) or not ascending or min(epochs + factors) < 0:
            return "steps", "must be pairs of ascending whole epochs and factors >= 0"
        return None

    @property
    def pauses(self) -> bool:
        """Whether the factor may be 0 in an epoch."""
        if self.start_epoch > 1 or self.stop_epoch > 0:
            return True
        if self.kind == "steps":
            epochs, factors = self._steps()
            return epochs[0] > 1 or 0 in factors
        return self.kind in ("linear", "cosine") and self.final_factor == 0

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
        if self.kind == "steps":
            passed = [f for e, f in zip(*self._steps(), strict=True) if e <= epoch]
            return warm * (passed[-1] if passed else 0.0)
        progress = since / max(last - self.start_epoch, 1)
        if self.kind == "cosine":
            progress = 0.5 * (1.0 - math.cos(math.pi * progress))
        return warm * (1.0 + (self.final_factor - 1.0) * progress)

    def _steps(self) -> tuple[list[float], list[float]]:
        """Returns the epochs and the factors of ``steps``."""
        numbers = [float(number) for number in self.steps.split()]
        return numbers[::2], numbers[1::2]
