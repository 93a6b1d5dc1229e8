"""The sections of a study file, each a pydantic model that holds what is true of it alone.

`kdscale.search._rules` holds what joins several of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from kdscale.files import uri_problem
from kdscale.records import Value
from kdscale.training import ByteCount, Spec, rule_error

Seed = Annotated[int, Field(ge=0)]
"""A seed of training."""


class SearchSpec(Spec):
    """How configurations are chosen."""

    method: Literal["grid", "factorial", "oat", "random", "sobol", "lhs", "tpe", "gp", "cmaes"] = (
        "tpe"
    )
    """grid: all combinations; factorial: all combinations of the ends of ranges and of listed
    values; oat: one parameter at a time around ``baseline``; random; sobol: scrambled Sobol points;
    lhs: a Latin hypercube a generation; tpe, gp, cmaes: Optuna's model-based samplers."""

    seed: int = Field(0, ge=0)
    """Seed of the search itself, not of the training."""

    baseline: dict[str, Value] | None = None
    """A value for each searched parameter: the first configuration, and the centre of oat."""

    first: tuple[dict[str, Value], ...] = Field((), exclude_if=lambda first: not first)
    """Configurations to begin with, a value for each searched parameter; the search follows."""

    warm_start: Path | None = Field(None, exclude_if=lambda folder: folder is None)
    """Folder of another study: begin with its best 3 configurations that lie in this search space.
    They are kept in this study as ``first``, so that it goes on without the other one."""

    generation: int | None = Field(None, ge=1)
    """Configurations asked for together; default: 8. Model-based searches learn between
    generations, and rungs compare the trials of a generation."""


class MetricSpec(Spec):
    """What the search improves."""

    name: Literal["val_accuracy", "val_loss", "train_loss"] = "val_accuracy"
    """An epoch's metric."""

    goal: Literal["maximize", "minimize"] = "maximize"
    """Direction."""

    mode: Literal["last", "best", "mean_last_n"] = "last"
    """A trial's value: at the last epoch, at the best, or the mean of the last ``n``."""

    n: int | None = Field(None, ge=1, validate_default=True)
    """Epochs of ``mean_last_n``."""

    @field_validator("n")
    @classmethod
    def _n_fits_mode(cls, n: int | None, info: ValidationInfo) -> int | None:
        mode = info.data.get("mode")
        if mode == "mean_last_n" and n is None:
            raise rule_error("must be given with mode: mean_last_n", hint="for example n: 5")
        if mode in ("last", "best") and n is not None:
            raise rule_error("must be given only with mode: mean_last_n", hint="remove it")
        return n


class RungsSpec(Spec):
    """Successive halving: of a generation's trials under one seed, only the best 1/eta train on
    after each rung. Which trials train together changes nothing. Where seeds are raced, rungs
    compare under the first seed; who comes through trains to the last epoch under the others.
    """

    eta: int = Field(2, ge=2)
    """Factor between rungs, and between trials before and after a rung."""

    first: int = Field(ge=1)
    """Epoch of the first rung."""


class BudgetSpec(Spec):
    """How much to spend."""

    trials: int | None = Field(None, ge=1, le=1_000_000)
    """Configurations x seeds. Grid and oat need none: their design has its size."""

    epochs: int = Field(ge=1)
    """Epochs of a full trial. With ``match: wall_clock`` the parts of its seconds at whose ends it
    is evaluated, and in which schedules and rungs are counted, however many images that is."""

    match: Literal["epochs", "wall_clock", "trials"] = "epochs"
    """What all trials get an equal amount of. epochs: passes over the data. wall_clock: seconds of
    training compute, which is what a trial's steps take if it trains alone: its student, the live
    teacher and the data; evaluation, saving, pauses and restarts are recorded, not counted. Time
    is measured, so no two runs end with the same bits. trials: refused, see the message."""

    seconds: float | None = Field(None, gt=0, validate_default=True)
    """Seconds of training compute of a trial, with ``match: wall_clock``; times ``budget.compute``,
    if that is among the parameters."""

    gpu_hours: float | None = Field(None, gt=0)
    """Start no new cohort after so many hours of GPU time."""

    per_trial_seconds: float | None = Field(None, gt=0)
    """Stop a trial after so many seconds of training."""

    @field_validator("match")
    @classmethod
    def _one_objective_has_no_rivals(cls, match: str) -> str:
        if match == "trials":
            rule = (
                "must be epochs or wall_clock, because a study has one objective, and so no "
                "methods among which to share out its trials"
            )
            hint = "write a study for each method, with the same budget.trials in all of them"
            raise rule_error(rule, hint=hint)
        return match

    @field_validator("seconds")
    @classmethod
    def _seconds_fit_match(cls, seconds: float | None, info: ValidationInfo) -> float | None:
        match = info.data.get("match")
        if match == "wall_clock" and seconds is None:
            raise rule_error("must be given with match: wall_clock", hint="for example 600")
        if match == "epochs" and seconds is not None:
            hint = "write match: wall_clock, or remove it"
            raise rule_error("must be given only with match: wall_clock", hint=hint)
        return seconds

    @field_validator("per_trial_seconds")
    @classmethod
    def _one_limit_of_seconds(cls, seconds: float | None, info: ValidationInfo) -> float | None:
        if seconds is not None and info.data.get("match") == "wall_clock":
            hint = "remove it: budget.seconds says it"
            raise rule_error("must not be given with match: wall_clock", hint=hint)
        return seconds


class ResourcesSpec(Spec):
    """What a cohort gets."""

    workers: int = Field(1, ge=1)
    """Processes that train a cohort together (DDP)."""

    cpus_per_worker: int = Field(1, ge=1)
    """CPUs of each."""

    gpus_per_worker: float = Field(0, ge=0)
    """GPUs of each; a fraction shares one."""

    placement: Literal["pack", "spread"] = "pack"
    """Where a cohort's workers go. pack: together on as few nodes as there is room on; spread: each
    on a node of its own as long as there are such. A cohort of one worker goes where there is room,
    and so do cohorts among each other. Changes no result."""

    cohort: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """The most trials that share one teacher pass. auto: measured by a few steps where there are
    many trials; fewer all train together. Halved when memory runs out. Changes no result."""

    max_failures: int = Field(2, ge=0)
    """How often a trial whose worker crashed is tried again. A lost or preempted node does not
    count. Changes no result."""

    @field_validator("gpus_per_worker")
    @classmethod
    def _a_fraction_is_of_one_gpu(cls, gpus: float) -> float:
        if gpus > 1 and gpus % 1:
            hint = f"write {int(gpus)} or {int(gpus) + 1}"
            raise rule_error("must be a whole number if it is more than 1", hint=hint)
        return gpus


class TrackingSpec(Spec):
    """MLflow."""

    mlflow: bool = True
    """Whether trials are recorded in MLflow."""

    uri: str | None = None
    """Tracking URI; default: MLFLOW_TRACKING_URI, else SQLite in the study folder."""

    experiment: str | None = None
    """Name of the experiment; default: the study's name."""


class StorageSpec(Spec):
    """Where the study lies."""

    folder: Path = Path("studies")
    """Folder of study folders, relative to the working directory."""

    url: str | None = None
    """SQLAlchemy URL of the Optuna storage; default: SQLite in the study folder."""

    remote: str | None = None
    """URI of a folder that checkpoints, students, teachers and the teacher cache are copied to, and
    from which any node goes on: ``s3://bucket/folder``, ``gs://…``, ``file:///mount/folder``. What
    an S3-compatible server needs is its query: ``?endpoint_override=HOST:9000&scheme=http``. Keys
    come from the environment, as AWS's tools take them. Default: the study folder alone."""

    quota: ByteCount | None = None
    """Most bytes that the study's checkpoints and students take, as a number or as ``50GB``; beyond
    it the oldest that no trial needs to go on is deleted. Default: nothing is deleted, unless the
    disk is full. The teacher cache has a quota of its own."""

    keep_students: Annotated[int, Field(ge=1)] | Literal["all"] = "all"
    """Students that stay, whatever the quota: those of the best so many configurations, or all."""

    @field_validator("remote")
    @classmethod
    def _remote_is_a_uri(cls, remote: str | None) -> str | None:
        if remote is not None and (rule := uri_problem(remote)):
            raise rule_error(rule, hint="for example s3://bucket/folder")
        return remote
