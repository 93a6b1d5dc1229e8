from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from kdscale.data import Icons100Spec
from kdscale.errors import UserError
from kdscale.models import Network, create_model
from kdscale.training import (
    Group,
    ModelSpec,
    Progress,
    TaskSpec,
    TeacherSpec,
    content_hash,
    load_network,
    load_teacher,
    store_teacher,
    train_teacher,
    trained_teacher_path,
)
from kdscale.training._checkpoint import load_checkpoint, save_atomically
from kdscale.training._student import save_network

from .tasks import RECIPE, STUDENT, assert_same, data, recipe_with

MODEL = ModelSpec(model="resnet8", args={"width": 5})


def network(seed: int = 3) -> Network:
    return create_model("resnet8", 100, args=MODEL.args, seed=seed)


def spec(weights: Path | str | None = None, **changes: Any) -> TeacherSpec:
    given = MODEL.model_dump() | {"weights": None if weights is None else str(weights)} | changes
    return TeacherSpec.model_validate(given)


def behind_module(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


FORMATS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "arch": "resnet8"},
    "RepDistiller": lambda state: {"epoch": 240, "model": state, "best_acc": torch.tensor(72.5)},
    "RepDistiller under DDP": lambda state: {
        "epoch": 240,
        "model": behind_module(state),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    },
    "DDP": behind_module,
}


@pytest.mark.parametrize("name", FORMATS)
def test_weights_load_from_the_formats_in_use(name: str, tmp_path: Path) -> None:
    expected = network()
    torch.save(FORMATS[name](OrderedDict(expected.state_dict())), tmp_path / "t.pth")
    loaded = load_teacher(spec(tmp_path / "t.pth"), data(), tmp_path / "study")
    assert_same(dict(loaded.state_dict()), dict(expected.state_dict()))
    assert not any(part.training for part in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_our_own_files_are_teachers_and_networks(tmp_path: Path) -> None:
    path, expected = tmp_path / "student.pt", network()
    save_network(expected, MODEL, 100, path, {"trial": "c001-s0"})
    for loaded in (
        load_teacher(spec(path), data(), tmp_path / "study"),
        load_network(path, num_classes=100, image_size=32),
    ):
        assert_same(dict(loaded.state_dict()), dict(expected.state_dict()))
        assert not loaded.training


def refusal(state: dict[str, Any], path: Path) -> str:
    save_atomically(state, path)
    with pytest.raises(UserError) as error:
        load_teacher(spec(path), data(), path.parent / "study")
    return str(error.value).removeprefix(f"{path}: ")


def test_misfits_are_named(tmp_path: Path) -> None:
    path, state = tmp_path / "t.pt", dict(network().state_dict())
    weight = state.pop("classifier.weight")
    assert refusal(state, path) == (
        "the weights must fit the teacher's model; absent: classifier.weight"
    )
    assert refusal(state | {"classifier.weight": weight[:10]}, path) == (
        "the weights must fit the teacher's model; "
        "shape: classifier.weight (10, 20) instead of (100, 20)"
    )
    assert refusal(state | {"classifier.weight": weight, "fc.bias": weight}, path) == (
        "the weights must fit the teacher's model; unknown: fc.bias"
    )
    other = create_model("resnet14", 10, args={"width": 5}, seed=0).state_dict()
    message = refusal({"model": dict(other)}, path)
    assert "unknown: " in message
    assert "…" in message
    assert "shape: classifier.weight (10, 20) instead of (100, 20), classifier.bias" in message


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "absent.pt"
    with pytest.raises(UserError, match=r"absent\.pt: .*\(correct task\.teacher\.weights\)"):
        load_teacher(spec(path), data(), tmp_path)
    with pytest.raises(UserError, match=r"student\.pt: .*\(`kdscale teacher STUDY` trains it\)"):
        load_teacher(spec(), data(), tmp_path)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands in for the package's own weights, whichever they are."""
    folder = tmp_path / "kdscale" / "weights"
    folder.mkdir(parents=True)
    monkeypatch.setattr("importlib.resources.files", lambda package: folder.parent)
    return folder


def test_the_packages_weights_go_by_name(shipped: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("icons100-resnet8", "icons100-resnet20")):
        save_network(network(seed), MODEL, 100, shipped / f"{name}.pt", {})
    loaded = load_teacher(spec("package:icons100-resnet20"), data(), tmp_path / "study")
    assert_same(dict(loaded.state_dict()), dict(network(1).state_dict()))
    with pytest.raises(UserError) as error:
        load_teacher(spec("package:icons100-resent8"), data(), tmp_path / "study")
    assert str(error.value) == (
        'task.teacher.weights: "package:icons100-resent8" must name weights that kdscale ships '
        '(icons100-resnet20, icons100-resnet8) did you mean "icons100-resnet8"?'
    )


def test_unknown_weights_of_the_package_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='"package:zebra" must name weights that kdscale ships'):
        load_teacher(spec("package:zebra"), data(), tmp_path)


def test_timms_weights_need_images_as_timm_normalises_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def create_offline(*args: Any, pretrained: bool, **kwargs: Any) -> Network:
        assert pretrained
        return create_model(*args, **kwargs)

    monkeypatch.setattr("kdscale.training._teacher.create_model", create_offline)
    given = spec("timm", model="timm/test_resnet", args={})
    with pytest.raises(UserError, match=r"takes images normalised with mean .*but task\.data has"):
        load_teacher(given, data(), tmp_path)
    wanted = timm.get_pretrained_cfg("test_resnet")
    fitting = replace(data(), mean=wanted.mean, std=wanted.std)
    assert not load_teacher(given, fitting, tmp_path).training


def test_a_networks_file_must_be_complete_and_of_the_tasks_classes(tmp_path: Path) -> None:
    path = tmp_path / "n.pt"
    save_network(network(), MODEL, 100, path, {})
    with pytest.raises(UserError, match="must have 10 classes, but has 100"):
        load_network(path, num_classes=10, image_size=32)
    save_atomically({"model": "resnet8", "state": {}}, path)
    with pytest.raises(UserError, match="a network's file must hold args, num_classes"):
        load_network(path, num_classes=100, image_size=32)


def test_the_content_hash_is_of_the_weights_alone() -> None:
    state = dict(network().state_dict())
    known = content_hash(state)
    assert content_hash(dict(reversed(state.items()))) == known
    assert content_hash({name: value.clone() for name, value in state.items()}) == known
    name = "classifier.weight"
    assert content_hash(state | {name: state[name].T.contiguous().T}) == known
    others = [
        dict(network(4).state_dict()),
        state | {name: state[name].double()},
        state | {name: state[name].reshape(-1)},
        state | {name: torch.nextafter(state[name], torch.tensor(9.0))},
        {("renamed" if key == name else key): value for key, value in state.items()},
    ]
    assert len({known, *(content_hash(other) for other in others)}) == 1 + len(others)


def test_a_teacher_is_kept_once_whatever_its_file_was_called(tmp_path: Path) -> None:
    study = tmp_path / "study"
    paths = []
    for name in ("a.pt", "b.pth"):
        torch.save(network().state_dict(), tmp_path / name)
        loaded = load_teacher(spec(tmp_path / name), data(), study)
        paths.append(store_teacher(loaded, spec(tmp_path / name), 100, study))
    first, second = paths
    assert first == second
    assert list((study / "teachers").iterdir()) == [first]
    assert load_checkpoint(first)["about"] == {"weights": str(tmp_path / "a.pt")}
    restored = load_network(first, num_classes=100, image_size=32)
    assert_same(dict(restored.state_dict()), dict(network().state_dict()))
    other = store_teacher(network(4), spec(), 100, study)
    assert other != first
    assert load_checkpoint(other)["about"] == {"weights": "trained here"}


def task(**teacher: Any) -> TaskSpec:
    return TaskSpec(data=Icons100Spec(), teacher=spec(**teacher), student=STUDENT, recipe=RECIPE)


def attempt(task: TaskSpec, folder: Path, told: int | None = None) -> list[Progress]:
    """Returns the progress of a teacher's training, ended after some of it."""
    progress = train_teacher(task, data(), folder, epochs=3, seed=1, group=Group())
    reports = list(islice(progress, told))
    progress.close()  # type: ignore[attr-defined]
    return reports


def test_a_teacher_is_trained_and_resumes(tmp_path: Path) -> None:
    whole = attempt(task(), tmp_path / "whole")
    assert [report.status for report in whole] == ["running"] * 3 + ["done"]
    assert list(whole[1].rows[0])[2:5] == ["train_loss", "train_ce", "train_accuracy"]
    cut = tmp_path / "cut"
    attempt(task(), cut, told=2)
    with pytest.raises(UserError, match="must exist"):
        load_teacher(spec(), data(), cut)
    resumed = attempt(task(), cut)
    assert [len(report.rows) for report in resumed] == [1, 1, 1]
    assert [row for report in resumed for row in report.rows] == [
        row for report in whole for row in report.rows
    ]
    states = [load_checkpoint(trained_teacher_path(tmp_path / n)) for n in ("whole", "cut")]
    assert_same(states[0], states[1])
    trained = load_teacher(spec(), data(), cut)
    assert_same(dict(trained.state_dict()), dict(states[0]["state"]))


def test_a_teachers_own_recipe_and_epochs_come_first(tmp_path: Path) -> None:
    own = recipe_with(lr=0.25, schedule="constant", warmup_epochs=0)
    reports = attempt(task(recipe=own.model_dump(), epochs=1), tmp_path)
    assert [row["lr"] for report in reports for row in report.rows] == [0.25]


def test_repdistillers_names_are_read_in_order(tmp_path: Path) -> None:
    """Its modules have other names than the zoo's, and the same tensors in the same order."""
    weights = network().state_dict()
    renamed = {f"net.{index}": value for index, value in enumerate(weights.values())}
    path = tmp_path / "ckpt_epoch_240.pth"
    torch.save({"epoch": 240, "model": renamed, "best_acc": 72.5}, path)
    spec = TeacherSpec(model=MODEL.model, args=MODEL.args, weights=str(path))
    teacher = load_teacher(spec, data(), tmp_path)
    assert content_hash(teacher.state_dict()) == content_hash(weights)
