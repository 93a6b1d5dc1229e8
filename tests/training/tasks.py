"""A tiny task: what the tests of the training loop train, and how they compare it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from kdscale.data import ArraySplit, Icons100Spec, TaskData, fingerprint, load_data
from kdscale.losses import TermConfig
from kdscale.models import Network, create_model
from kdscale.training import (
    CachedTeacher,
    Cohort,
    Group,
    Member,
    ModelSpec,
    Progress,
    RecipeSpec,
    Row,
    TeacherCacheSpec,
    checkpoint_path,
    student_path,
    train_cohort,
)
from kdscale.training._checkpoint import load_checkpoint

EPOCHS = 3
RECIPE = RecipeSpec(lr=0.05, batch_size=32, warmup_epochs=1)
STUDENT = ModelSpec(model="resnet8", args={"width": 4})
VIT_ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
VIT = ModelSpec(model="vit_tiny_patch16_224", args=VIT_ARGS)

TERMS: dict[str, tuple[TermConfig, ...]] = {
    "kd": (TermConfig("kd", "kd"),),
    "dkd": (TermConfig("dkd", "dkd"),),
    "shallow": (TermConfig("ldrld", "ldrld", 1.0, {"depth": 3}),),
    "deep": (TermConfig("ldrld", "ldrld", 1.0, {"depth": 9}),),
    "rsd": (TermConfig("rsd", "rsd", 1.0, {"variant": "embedding"}),),
    "two": (
        TermConfig("soft", "kd", 0.5),
        TermConfig("rsd", "rsd", 0.5, {"variant": "logits", "lambda": 0.01}),
    ),
    "crd": (TermConfig("crd", "crd", 0.1, {"negatives": 16}),),
    "views": (TermConfig("crld", "crld", 0.1),),
    "simkd": (TermConfig("simkd", "simkd"),),
    "undistilled": (),
}


@cache
def data() -> TaskData:
    """Returns 100 training images, so three batches of 32 an epoch, and 103 validation images."""
    whole = load_data(Icons100Spec(train_images=100))
    assert isinstance(whole.validation, ArraySplit)
    return replace(whole, validation=whole.validation.subset(np.arange(0, 1225, 12)))


def teacher() -> Network:
    """Returns a teacher of random weights: a new one, as the loop may change its format."""
    network = create_model("resnet8", data().num_classes, args={"width": 6}, seed=9)
    return network.eval().requires_grad_(False)


def behind(
    folder: Path, load: Callable[[], Network] = teacher, name: str = "t", **spec: Any
) -> CachedTeacher:
    """Returns a teacher behind the cache of a folder."""
    cache = TeacherCacheSpec.model_validate(spec)
    return CachedTeacher(load, {"weights": name}, fingerprint(data().train), cache, folder)


def must_not_load() -> NoReturn:
    """Stands for the loading of a teacher that the cache makes needless."""
    raise AssertionError("the teacher must not be loaded")


def recipe_with(**changes: Any) -> RecipeSpec:
    """Returns ``RECIPE`` with some fields changed."""
    return RecipeSpec.model_validate(RECIPE.model_dump() | changes)


def members(
    folder: Path, *names: str, recipes: Mapping[str, RecipeSpec] | None = None
) -> tuple[Member, ...]:
    """Returns members named as their methods in ``TERMS``; others are undistilled.

    Args:
        folder: Holds a folder a member.
        names: Their names.
        recipes: By name, recipes other than ``RECIPE``.
    """
    given = recipes or {}
    return tuple(
        Member(name, 1.0, TERMS.get(name, ()), given.get(name, RECIPE), folder / name)
        for name in names
    )


def cohort_of(trials: tuple[Member, ...], **changes: Any) -> Cohort:
    """Returns a cohort of the tiny task."""
    return replace(Cohort(model=STUDENT, members=trials, seed=5, epochs=EPOCHS), **changes)


@dataclass
class Outcome:
    """What a loop told of one trial from its first progress to its last."""

    status: str
    reason: str
    rows: list[Row]


def follow(
    progress: Iterable[list[Progress]], told: dict[str, Outcome] | None = None
) -> dict[str, Outcome]:
    """Returns what a loop tells of each trial, to its end.

    Args:
        progress: The loop.
        told: Filled with the same, also if the loop does not come to its end.
    """
    outcomes = {} if told is None else told
    for reports in progress:
        for report in reports:
            known = outcomes.setdefault(report.name, Outcome("", "", []))
            known.status, known.reason = report.status, report.reason
            known.rows += report.rows
    return outcomes


def train(cohort: Cohort, group: Group | None = None) -> dict[str, Outcome]:
    """Returns what came out of training a cohort of the tiny task to its end."""
    return follow(train_cohort(cohort, data(), teacher(), group or Group()))


def files_of(member: Member) -> dict[str, Any]:
    """Returns a trial's files without its seconds, which no two runs share."""
    files = {}
    for path in (checkpoint_path(member.folder), student_path(member.folder)):
        if path.exists():
            files[path.name] = load_checkpoint(path)
            files[path.name].pop("seconds", None)
    return files


def assert_same(a: Any, b: Any) -> None:
    """Holds that two trees of dictionaries, lists, tensors and plain values have the same bits."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, Mapping):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for part, other in zip(a, b, strict=True):
            assert_same(part, other)
    else:
        assert a == b
