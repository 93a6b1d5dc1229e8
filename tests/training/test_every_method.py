"""Every method trains: two epochs on real images, as a study would train it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from kdscale.data import TaskData
from kdscale.losses import METHODS, TermConfig
from kdscale.models import Network, create_model
from kdscale.outputs import OutputShapes
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
MIXER = ModelSpec(model="mixer_s16_224", args={"img_size": 32, "mlp_ratio": (0.5, 0.25)})
SMALL = {"crd": {"negatives": 16}, "ldrld": {"depth": 5}, "ft": {"paraphraser_epochs": 1}}
KEEP_THEIR_END = {"simkd"}
TRAINABLE = [name for name, method in METHODS.items() if not method.dense]


def vit(model: ModelSpec = VIT) -> Network:
    network = create_model(model.model, data().num_classes, args=model.args, seed=9)
    return network.eval().requires_grad_(False)


def cnn() -> Network:
    network = create_model("resnet8", data().num_classes, args={"width": 6}, seed=9)
    return network.eval().requires_grad_(False)


def train_pair(name: str, model: ModelSpec, teacher: Network, folder: Path) -> None:
    """Trains a student by one method and looks at what came of it."""
    term = TermConfig("it", name, None, SMALL.get(name, {}))
    member = Member("it", 1.0, (term,), RECIPE, folder)
    told = follow(train_cohort(Cohort(model, (member,), 5, EPOCHS), small(), teacher, Group()))
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


def small() -> TaskData:
    return data()


def refusal(name: str, model: ModelSpec, teacher: OutputShapes) -> str:
    from kdscale.losses import PairShapes

    student = create_model(model.model, 100, args=model.args, seed=0).shapes
    method = METHODS[name]
    shapes = PairShapes(student, teacher, RECIPE.batch_size, small().train.labels)
    return method.refusal(shapes, method.complete(SMALL.get(name, {})))


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_convolutional_pair(name: str, tmp_path: Path) -> None:
    assert refusal(name, STUDENT, cnn().shapes) == ""
    train_pair(name, STUDENT, cnn(), tmp_path)


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_transformer_teaches_a_convolutional_student(name: str, tmp_path: Path) -> None:
    if reason := refusal(name, STUDENT, vit().shapes):
        assert name in CNN_TEACHERS_ONLY, reason
        return
    train_pair(name, STUDENT, vit(), tmp_path)


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_convolutional_teacher_teaches_an_mlp(name: str, tmp_path: Path) -> None:
    if reason := refusal(name, MIXER, cnn().shapes):
        assert name in CNN_STUDENTS_ONLY, reason
        return
    train_pair(name, MIXER, cnn(), tmp_path)


CNN_TEACHERS_ONLY: set[str] = set()
CNN_STUDENTS_ONLY: set[str] = set()
