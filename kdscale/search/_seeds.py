"""The seeds of a study: how many, which, and who gets how many of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from kdscale.search._sections import MetricSpec, Seed
from kdscale.training import Spec, rule_error

_ACCURACY_TOLERANCE = 0.1
_MOST_SEEDS = 10_000

SeedList = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=_MOST_SEEDS)]
"""Seeds one by one."""


def unique_seeds(seeds: tuple[int, ...]) -> None:
    """Refuses a seed that is listed twice."""
    for index, seed in enumerate(seeds):
        if seed in seeds[:index]:
            raise rule_error("must be listed only once", hint="remove it", at=(index,))


class SeedsSpec(Spec):
    """Seeds with what is done with them."""

    n: int | None = Field(None, ge=1, le=_MOST_SEEDS)
    """A count: seeds 0 to n-1."""

    list: SeedList | None = Field(None, validate_default=True)
    """The seeds one by one, in the place of ``n``."""

    paired: bool = True
    """Whether all configurations have the same seeds: they do."""

    policy: Literal["all", "race"] = "all"
    """all: every configuration under every seed; race: seeds one after the other, and none for
    configurations that are surely no better than another (5% chance of an error)."""

    tolerance: float | None = Field(None, ge=0)
    """Of a race: by how much worse than the best its winner may be, in the metric's unit; default:
    0.1 for an accuracy, 0 for a loss."""

    @field_validator("list")
    @classmethod
    def _one_of_n_and_list(
        cls, seeds: tuple[int, ...] | None, info: ValidationInfo
    ) -> tuple[int, ...] | None:
        if "n" in info.data and (seeds is None) == (info.data["n"] is None):
            hint = "write n: 5" if seeds is None else "remove one of them"
            raise rule_error("must be given, or n, and not both", hint=hint)
        unique_seeds(seeds or ())
        return seeds

    @field_validator("paired")
    @classmethod
    def _are_paired(cls, paired: bool) -> bool:
        if not paired:
            why = "trials of one seed share batches and teacher passes, and are compared within it"
            raise rule_error("must be true", hint=why)
        return paired

    @field_validator("policy")
    @classmethod
    def _a_race_needs_seeds(cls, policy: str, info: ValidationInfo) -> str:
        one = info.data.get("n") == 1 or len(info.data.get("list") or ()) == 1
        if policy == "race" and one:
            raise rule_error("must be all with one seed", hint="a race needs n: 2 or more")
        return policy

    @field_validator("tolerance")
    @classmethod
    def _is_of_a_race(cls, tolerance: float | None, info: ValidationInfo) -> float | None:
        if tolerance is not None and info.data.get("policy") == "all":
            raise rule_error("must be given only with policy: race", hint="remove it")
        return tolerance

    @property
    def values(self) -> tuple[int, ...]:
        """The seeds."""
        return self.list if self.list is not None else tuple(range(self.n or 0))


Seeds = Annotated[int, Field(ge=1, le=_MOST_SEEDS)] | SeedList | SeedsSpec
"""A count, a list, or a mapping."""


def seed_values(seeds: Seeds) -> tuple[int, ...]:
    """Returns the seeds, however they are written."""
    if isinstance(seeds, SeedsSpec):
        return seeds.values
    return tuple(range(seeds)) if isinstance(seeds, int) else seeds


def race_tolerance(seeds: Seeds, metric: MetricSpec) -> float | None:
    """Returns the tolerance of the study's race, or None if seeds are not raced."""
    if not isinstance(seeds, SeedsSpec) or seeds.policy == "all":
        return None
    if seeds.tolerance is not None:
        return seeds.tolerance
    return _ACCURACY_TOLERANCE if metric.name == "val_accuracy" else 0.0
