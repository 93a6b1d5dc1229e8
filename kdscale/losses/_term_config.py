"""One weighted method of an objective, as a study file says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdscale.losses._method import NUMBERS, Hyperparameter, Method
from kdscale.losses._schedule import Schedule
from kdscale.records import Value


@dataclass(frozen=True)
class TermConfig:
    """One weighted method of an objective.

    Attributes:
        name: Its label in metrics, unique in the objective; not ``loss`` or ``ce``.
        method: The method's name.
        weight: Multiplies the method's value in the objective; None takes the published weight.
        hyperparameters: Given hyperparameters by name; the others take their defaults.
        schedule: How the weight changes over the epochs.
        per_worker: A method that looks across the batch sees this worker's part of it alone, as
            most authors' code does, so that the loss depends on the number of workers.
    """

    name: str
    method: str
    weight: float | None = None
    hyperparameters: Mapping[str, Value] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)
    per_worker: bool = False


def common_hyperparameters(method: Method) -> tuple[Hyperparameter, ...]:
    """Returns what a study file may set, and search, of every method: weight and schedule."""
    found = (
        Hyperparameter("weight", method.weight, "weight of the method's loss", low=0),
        Hyperparameter(
            "schedule",
            "constant",
            "how the weight changes: not; along a line or a cosine to final_factor; by steps",
            choices=("constant", "linear", "cosine", "steps"),
        ),
        Hyperparameter("final_factor", 0.0, "factor on the weight at the last epoch", low=0),
        Hyperparameter("warmup_epochs", 0, "epoch e of so many multiplies by e / w too", low=0),
        Hyperparameter("start_epoch", 1, "first epoch with this method, from 1", low=1),
        Hyperparameter("stop_epoch", 0, "last epoch with this method; 0: the last of all", low=0),
        Hyperparameter(
            "steps",
            "1 1",
            "epochs and the factors from these on, for schedule: steps",
            pattern=NUMBERS,
            pattern_help='epochs and factors in turn, as in "1 0.1 20 1"',
        ),
    )
    if not method.couples_batch:
        return found
    per_worker = Hyperparameter(
        "per_worker", False, "see one worker's part of the batch alone, as the authors' code does"
    )
    return (*found, per_worker)
