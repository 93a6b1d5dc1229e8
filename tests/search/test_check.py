from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sweeps import DATA, must_not_run, network, study_in

from kdscale.errors import UserError
from kdscale.models import count_parameters, create_model
from kdscale.search import check
from kdscale.training import store_teacher


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_it_says_what_would_be_trained(tmp_path: Path) -> None:
    study = study_in(tmp_path, "rungs.first=1", "task.student.args={width: 6}")
    before = files(tmp_path)
    result = check(study)
    assert files(tmp_path) == before
    assert (result.teacher.name, result.student.name) == ("resnet8 (width=4)", "resnet8 (width=6)")
    assert result.student.parameters == count_parameters(
        create_model("resnet8", 100, args={"width": 6}, seed=1)
    )
    assert result.teacher.parameters == count_parameters(network(seed=0))
    assert result.student.macs > result.teacher.macs > 0
    assert (result.train_images, result.validation_images) == (100, 1225)
    # Cohorts of two: both train to the rung at epoch 1, one goes on to epoch 2; and two controls.
    assert (result.cohort_size, result.generations) == (2, 1)
    assert (result.student_epochs, result.without_rungs) == (2 * 3 + 2 * 2, 4 * 2 + 2 * 2)
    assert result.teacher_epochs == 4
    assert result.refused == ()


def test_the_expected_time_grows_with_the_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A step takes 2 s: then the rest is arithmetic.
    monkeypatch.setattr("kdscale.search._estimate_cost._median_seconds", lambda step: 2.0)
    result = check(study_in(tmp_path))
    steps = 100 // 32
    epochs = result.student_epochs + result.teacher_epochs
    assert result.cpu_hours == pytest.approx(epochs * steps * 2.0 / 3600)
    assert check(study_in(tmp_path, "budget.epochs=4")).cpu_hours == 2 * result.cpu_hours


def test_timed_steps_are_measured_and_leave_torch_as_it_was(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert check(study_in(tmp_path, "resources.cpus_per_worker=2")).cpu_hours > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_ends_of_the_space_that_a_method_refuses_are_told_once(tmp_path: Path) -> None:
    (reason,) = check(study_in(tmp_path, "depth=choice(3,99)")).refused
    assert reason.startswith("ldrld: ")
    assert "classes must be >= depth + 2 = 101" in reason
    assert len(check(study_in(tmp_path, "depth=choice(99,120)")).refused) == 2
    assert len(check(study_in(tmp_path, "depth=99")).refused) == 1


def test_a_method_that_remembers_images_is_not_refused(tmp_path: Path) -> None:
    remembering = "objective.methods=[{method: crd, negatives: 64}]"
    study = study_in(tmp_path, remembering, "~alpha", "~depth", "weight=interval(0.1,2)")
    assert check(study).refused == ()


def test_the_teachers_weights_are_looked_at(tmp_path: Path) -> None:
    spec = study_in(tmp_path).task.teacher
    path = store_teacher(network(seed=1), spec, 100, tmp_path)
    assert check(study_in(tmp_path, f"task.teacher.weights={path}")).teacher.parameters > 0
    with pytest.raises(UserError, match="must fit the teacher's model"):
        check(study_in(tmp_path, f"task.teacher.weights={path}", "task.teacher.args={width: 5}"))
    with pytest.raises(UserError, match="weights must exist"):
        check(study_in(tmp_path, "task.teacher.weights=nowhere.pt"))


def test_a_pretrained_teacher_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdscale.search._estimate_cost.load_teacher", must_not_run)
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    teacher = {"model": "vit_tiny_patch16_224", "weights": "timm", "args": args}
    study = study_in(tmp_path, task=DATA["task"] | {"teacher": teacher})
    assert check(study).teacher.name.startswith("vit_tiny_patch16_224 (img_size=32, ")


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_model_that_cannot_be_made_is_named(tmp_path: Path, who: str) -> None:
    study = study_in(tmp_path, f"task.{who}.args={{width: 0}}")
    with pytest.raises(UserError, match=rf"^task\.{who}: width must be .* but got 0"):
        check(study)


def test_an_epoch_needs_one_batch(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"at most the number of training images \(20\), but got 32"
    ):
        check(study_in(tmp_path, "task.data.train_images=20"))
