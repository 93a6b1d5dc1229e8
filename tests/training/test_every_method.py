"""Every method trains: two epochs on real images, as a study would train it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from kdscale.losses import METHODS, PairShapes, TermConfig
from kdscale.models import Network, create_model
from kdscale.records import Value
from kdscale.training import (
    Cohort,
    Group,
    Member,
    ModelSpec,
    load_network,
    student_path,
    train_cohort,
)
from kdscale.training._checkpoint import load_checkpoint

from .tasks import RECIPE, STUDENT, VIT, data, follow

EPOCHS = 2
MLP = ModelSpec(model="mixer_s16_224", args={"img_size": 32, "mlp_ratio": (0.5, 0.25)})
SMALL: dict[str, dict[str, Value]] = {
    "crd": {"negatives": 16},
    "diffkd": {"ae_channels": 16},
    "ft": {"paraphraser_epochs": 1},
}
"""Hyperparameters for a small task."""

ACROSS: dict[str, dict[str, Value]] = {
    "diffkd": {"features": "none"},
    "reviewkd": {"teacher_features": "stage"},
}
"""Further ones for pairs of two kinds of networks."""

NEEDS_RELUS = "must put out its stages' features before their last ReLU"
NEEDS_EQUAL_GRIDS = "maps must have one grid"
NEEDS_NEAR_GRIDS = "grid must be half, twice or at least the teacher's"
NEEDS_TAIL = "must be able to run from a stage's features on"
NEEDS_CLASS_MAPS = "the teacher must have a linear classifier on the mean of a map"
NEEDS_MAP = "map, so the teacher must have one whose mean is the embedding"
REFUSED_BY_VIT = {
    "ab": NEEDS_RELUS,
    "cat_kd": NEEDS_CLASS_MAPS,
    "fcfd": NEEDS_TAIL,
    "mgd": NEEDS_EQUAL_GRIDS,
    "norm": NEEDS_MAP,
    "ofd": NEEDS_RELUS,
    "sdd": NEEDS_CLASS_MAPS,
    "simkd": NEEDS_MAP,
}
REFUSED_FOR_MLP = {
    "ab": NEEDS_NEAR_GRIDS,
    "fcfd": NEEDS_TAIL,
    "fitnet": NEEDS_NEAR_GRIDS,
    "mgd": NEEDS_EQUAL_GRIDS,
    "ofd": NEEDS_RELUS,
}
KEEP_THEIR_END = {"simkd"}
TRAINABLE = [name for name, method in METHODS.items() if not method.dense]


def vit(model: ModelSpec = VIT) -> Network:
    network = create_model(model.model, data().num_classes, args=model.args, seed=9)
    return network.eval().requires_grad_(False)


def cnn() -> Network:
    network = create_model("resnet8", data().num_classes, args={"width": 6}, seed=9)
    return network.eval().requires_grad_(False)


def train_pair(
    name: str, model: ModelSpec, teacher: Network, folder: Path, hyperparameters: dict[str, Value]
) -> None:
    """Trains a student by one method and looks at what came of it."""
    term = TermConfig("it", name, None, hyperparameters)
    member = Member("it", 1.0, (term,), RECIPE, folder)
    told = follow(train_cohort(Cohort(model, (member,), 5, EPOCHS), data(), teacher, Group()))
    outcome = told["it"]
    assert outcome.status == "done", outcome.reason
    assert [row["epoch"] for row in outcome.rows] == [1, 2]
    for row in outcome.rows:
        assert math.isfinite(row["train_it"])
        assert math.isfinite(row["train_loss"])
    bare = create_model(model.model, 100, args=model.args, seed=5)
    saved = load_checkpoint(student_path(folder))
    assert (saved["state"].keys() == bare.state_dict().keys()) == (name not in KEEP_THEIR_END)
    trained = load_network(student_path(folder), 100, 32)
    before = {key: value for key, value in bare.named_parameters() if value.ndim > 1}
    after = {key.removeprefix("body."): value for key, value in trained.named_parameters()}
    moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert len(moved) >= len(before) - 1  # SimKD's student has no use for its own classifier


def refusal(
    name: str, model: ModelSpec, teacher: Network, hyperparameters: dict[str, Value]
) -> str:
    student = create_model(model.model, 100, args=model.args, seed=0).shapes
    method = METHODS[name]
    shapes = PairShapes(student, teacher.shapes, RECIPE.batch_size, data().train.labels)
    return method.refusal(shapes, method.complete(hyperparameters))


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_convolutional_pair(name: str, tmp_path: Path) -> None:
    train_pair(name, STUDENT, cnn(), tmp_path, SMALL.get(name, {}))


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_transformer_teaches_a_convolutional_student(name: str, tmp_path: Path) -> None:
    teacher, hyperparameters = vit(), SMALL.get(name, {}) | ACROSS.get(name, {})
    if name in REFUSED_BY_VIT:
        assert REFUSED_BY_VIT[name] in refusal(name, STUDENT, teacher, hyperparameters)
    else:
        train_pair(name, STUDENT, teacher, tmp_path, hyperparameters)


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_convolutional_teacher_teaches_an_mlp(name: str, tmp_path: Path) -> None:
    teacher, hyperparameters = cnn(), SMALL.get(name, {}) | ACROSS.get(name, {})
    if name in REFUSED_FOR_MLP:
        assert REFUSED_FOR_MLP[name] in refusal(name, MLP, teacher, hyperparameters)
    else:
        train_pair(name, MLP, teacher, tmp_path, hyperparameters)
