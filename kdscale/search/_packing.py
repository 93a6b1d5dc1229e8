"""Which of the waiting trials train together next: a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Place:
    """Trials at one place can share a teacher pass.

    Attributes:
        seed: Their seed.
        epoch: The epochs that they have trained.
        alone: A trial that shares with none, by name; empty for all others.
    """

    seed: int
    epoch: int
    alone: str = ""


@dataclass(frozen=True)
class Waiting:
    """How many trials wait at a place.

    Attributes:
        distilled: Trials with a teacher.
        controls: Undistilled trials.
    """

    distilled: int
    controls: int = 0

    @property
    def all(self) -> int:
        """The sum."""
        return self.distilled + self.controls


def next_cohort(
    waiting: Mapping[Place, Waiting], *, size: int, lanes: int, epochs: int
) -> tuple[Place, int]:
    """Returns where the next cohort comes from, and how many trials it takes, distilled first.

    Where there are more trials than free lanes can take at once, full cohorts come first, those
    that are furthest among them; of one seed's trials that fill none, those that are least far, so
    that more may join the others. Where lanes would be left without work, cohorts are made
    smaller. Between seeds the longest work comes first.

    Args:
        waiting: What waits where; not empty.
        size: The most trials that train together.
        lanes: Free lanes, this one included.
        epochs: Epochs of a full trial.
    """
    parts = {place: max(1, ceil(there.distilled / size)) for place, there in waiting.items()}
    for _ in range(lanes - sum(parts.values())):
        largest = max(parts, key=lambda place: waiting[place].all / parts[place])
        if waiting[largest].all <= parts[largest]:
            break
        parts[largest] += 1
    taken = {place: min(size, ceil(there.all / parts[place])) for place, there in waiting.items()}
    full = [place for place, there in waiting.items() if there.distilled >= size]
    if full:
        furthest = max(place.epoch for place in full)
        choice = [place for place in full if place.epoch == furthest]
    else:
        least: dict[int, int] = {}
        for place, there in waiting.items():
            if there.distilled:
                least[place.seed] = min(place.epoch, least.get(place.seed, place.epoch))
        choice = [
            place
            for place, there in waiting.items()
            if not there.distilled or place.epoch == least[place.seed]
        ]
    # Of equals the first: places are in the order in which trials came to them.
    chosen = max(choice, key=lambda place: taken[place] * (epochs - place.epoch))
    return chosen, taken[chosen]
