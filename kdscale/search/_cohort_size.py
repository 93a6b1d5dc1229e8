"""How many trials train together: given, all that there are, or chosen by measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil

from kdscale.search._plan import most_together
from kdscale.search._study import Study
from kdscale.training import Measured

_WORTH_MEASURING = 16
"""So many trials make at least two cohorts of a size that shares most of what can be shared."""

FEWEST_MEASURED = 2
"""Sizes that must be measured to choose another one."""

_UNMEASURED = 8
_GOOD_ENOUGH = 0.98
"""Of the most trials an hour: a smaller cohort that is as good leaves more to balance."""

_ROOM = 0.85
"""Part of the memory that may be filled."""

_FURTHEST = 4
"""How many times the largest size that was measured may be chosen."""


@dataclass(frozen=True)
class CohortSize:
    """How many trials train together at most, and why.

    Attributes:
        size: The number; 0 if it has yet to be measured.
        why: What decided it, for people.
        table: What was measured.
        memory_bytes: The memory that there was.
        resources: What it was measured with.
    """

    size: int
    why: str = ""
    table: tuple[Measured, ...] = ()
    memory_bytes: int = 0
    resources: str = ""

    def to_json(self) -> str:
        """Returns it as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> CohortSize:
        """Returns what `to_json` wrote."""
        saved = json.loads(text)
        table = tuple(Measured(**row) for row in saved.pop("table"))
        return CohortSize(table=table, **saved)


def planned_size(study: Study, known: CohortSize | None = None, resources: str = "") -> CohortSize:
    """Returns the study's cohort size as far as it is known before anything is measured.

    Args:
        study: The study.
        known: What an earlier sweep has measured.
        resources: What this sweep trains with; empty to take what is known.
    """
    given, most = study.resources.cohort, most_together(study)
    if given != "auto":
        return CohortSize(min(given, most), "resources.cohort")
    if known is not None and known.resources == (resources or known.resources):
        return known
    if most < _WORTH_MEASURING:
        return CohortSize(most, "all trials of a seed that are there at once", resources=resources)
    return CohortSize(0, "to be measured", resources=resources)


def expected_size(study: Study, known: CohortSize | None) -> tuple[int, str]:
    """Returns how many trials are likely to train together, and why, for a plan."""
    size = planned_size(study, known)
    if size.size:
        return size.size, size.why
    return _WORTH_MEASURING, "a guess: the sweep's first steps measure it"


def cohorts_of_a_generation(study: Study) -> int:
    """Returns how many cohorts of a generation's trials can train at once, all as large as may be.

    More make cohorts smaller: that is faster, but each pays for a teacher pass of its own.
    """
    size, _ = expected_size(study, None)
    configurations = min(study.generation_size, study.configurations)
    seeds = len(study.seed_list) if study.tolerance is None else 1  # raced: one after the other
    return seeds * ceil(configurations / size)


def resources_key(study: Study, nodes: Sequence[Mapping[str, float]]) -> str:
    """Returns what a measurement depends on: when it changes, the next sweep measures again."""
    kept = sorted(
        sorted((name, amount) for name, amount in node.items() if _is_kind(name)) for node in nodes
    )
    asked = study.resources.model_dump(exclude={"cohort", "max_failures"})
    return json.dumps([asked, kept, most_together(study)])


def _is_kind(name: str) -> bool:
    return name in ("CPU", "GPU") or name.startswith("accelerator_type")


def chosen_size(
    table: Sequence[Measured], most: int, memory_bytes: int, resources: str, crash: str = ""
) -> CohortSize:
    """Returns the size with the most trials an hour that fits in memory.

    Sizes that were not measured are judged by the line through the two largest that were.

    Args:
        table: What was measured, by ascending size.
        most: The most trials that can train together.
        memory_bytes: Memory of the process.
        resources: What it was measured with.
        crash: What ended the measurement before it came far enough; empty if nothing did.
    """
    kept = tuple(table)
    if len(table) < FEWEST_MEASURED:
        guess = f"a guess for this sweep, as its measurement crashed: {crash}"
        size, why = min(most, _UNMEASURED), guess if crash else "too slow to measure"
        return CohortSize(size, why, kept, memory_bytes, resources)
    last, seconds_each, bytes_each = table[-1], *_slopes(table[-2], table[-1])

    def rate(size: int) -> float:
        known = {row.size: row.step_seconds for row in table}
        line = last.step_seconds + seconds_each * (size - last.size)
        return size / known.get(size, line)

    def fits(size: int) -> bool:
        needed = last.peak_bytes + bytes_each * (size - last.size)
        return size == 1 or needed <= _ROOM * memory_bytes

    sizes = [2**power for power in range(most.bit_length())] + [most]
    sizes = [size for size in sizes if fits(size) and size <= _FURTHEST * last.size]
    best = max(map(rate, sizes))
    size = min(size for size in sizes if rate(size) >= _GOOD_ENOUGH * best)
    alone = table[0].step_seconds / table[0].size
    why = f"measured: {rate(size) * alone:.1f}x the trials per hour of one at a time"
    return CohortSize(size, why, kept, memory_bytes, resources)


def _slopes(first: Measured, last: Measured) -> tuple[float, float]:
    """Returns seconds and bytes of one more student."""
    more = last.size - first.size
    seconds = (last.step_seconds - first.step_seconds) / more
    # A student is not for nothing, whatever noise says.
    floor = 0.1 * last.step_seconds / last.size
    return max(seconds, floor), max(0.0, (last.peak_bytes - first.peak_bytes) / more)
