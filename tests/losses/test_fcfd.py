from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses import METHODS, Batch, Bridge, PairShapes, fcfd_appearance, kd
from kdscale.models import create_model
from kdscale.outputs import OutputShapes
from kdscale.records import Value

from .pairs import CNN, WIDER, Trial, trial_of


def refusal(shapes: PairShapes, **given: Value) -> str:
    return METHODS["fcfd"].refuse(shapes, METHODS["fcfd"].complete(given))


def bridged_of(trial: Trial) -> list[Tensor]:
    assert isinstance(trial.term, nn.Module)
    bridges = trial.term.get_submodule("to_teacher")
    assert isinstance(bridges, nn.ModuleList)
    return [bridge(trial.batch.student.stages[k]) for k, bridge in enumerate(bridges, start=1)]


def appearance_of(trial: Trial) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for k, f_s in enumerate(bridged_of(trial), start=1):
        f_t = trial.batch.teacher.stages[k]
        total = total + F.mse_loss(f_s, f_t)
        if k == 3:
            pooled_s, pooled_t = (F.adaptive_avg_pool2d(F.relu(f), 1) for f in (f_s, f_t))
            total = total + F.mse_loss(pooled_s, pooled_t)
    return total


def test_appearance_is_zero_at_equal_maps() -> None:
    f_t = torch.randn(2, 3, 4, 4)
    for last in (False, True):
        assert fcfd_appearance(f_t, f_t, last=last) == 0
        assert fcfd_appearance(f_t + 1, f_t, last=last) >= 1
    with pytest.raises(ValueError, match="must both be"):
        fcfd_appearance(f_t, f_t[:, :2], last=False)


@pytest.mark.parametrize("target", [(5, 8, 8), (5, 4, 4), (5, 16, 16)])
def test_bridges_reach_equal_half_and_double_size(target: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 8, 8)
    plain = Bridge((3, 8, 8), target, rectified=False)
    leaky = Bridge((3, 8, 8), target, rectified=True)
    leaky.load_state_dict(plain.state_dict())
    assert plain(features).shape == (2, *target)
    torch.testing.assert_close(leaky(features), F.leaky_relu(plain(features), 0.1))


def test_without_mixed_paths_it_is_appearance_and_kd() -> None:
    trial = trial_of("fcfd", extra_paths=0, w_kd=0.5, weight_l2=3.0, l2_warmup_epochs=0)
    needs = trial.method.needs(trial.shapes, trial.method.complete({"extra_paths": 0}))
    expected_needs = {"logits", "stage 1", "stage 2", "stage 3"}
    assert needs.student == needs.teacher == expected_needs
    student, teacher = trial.batch.student.logits, trial.batch.teacher.logits
    expected = 3.0 * appearance_of(trial) + 0.5 * kd(student, teacher, temperature=4.0)
    torch.testing.assert_close(trial.term(trial.batch), expected)


@pytest.mark.parametrize(("epoch", "factor"), [(1, 0.1), (5, 0.5), (10, 1.0), (50, 1.0)])
def test_the_ramp_is_on_the_maps_distances_alone(epoch: int, factor: float) -> None:
    trial = trial_of("fcfd", extra_paths=0, l2_warmup_epochs=10)
    soft = kd(trial.batch.student.logits, trial.batch.teacher.logits, temperature=4.0)
    value = trial.term(replace(trial.batch, epoch=epoch))
    torch.testing.assert_close(value, 5.0 * factor * appearance_of(trial) + soft)


def test_mixed_paths_go_through_the_other_networks_later_stages() -> None:
    trial = trial_of(
        "fcfd", extra_paths=4, weight_l2=0.0, w_kd=0.0, w_mixture=0.2, temperature_mixture=2.0
    )
    assert isinstance(trial.term, nn.Module)
    batch, to_student = trial.batch, trial.term.get_submodule("to_student")
    assert batch.student.tail is not None
    assert batch.teacher.tail is not None
    logits = [batch.teacher.tail(k, f) for k, f in enumerate(bridged_of(trial)[:2], start=1)]
    for place in (0, 1):
        f_s = to_student.get_submodule(str(place))(batch.teacher.stages[place + 1])
        logits.append(batch.student.tail(place + 1, f_s))
    soft = [kd(z, batch.teacher.logits, temperature=2.0) for z in logits]
    torch.testing.assert_close(trial.term(batch), 0.2 * torch.stack(soft).sum())


@pytest.mark.parametrize(
    ("kind", "count", "student_tail", "teacher_tail"),
    [("bi", 4, True, True), ("s2t", 2, False, True), ("t2s", 2, True, False)],
)
def test_directions(kind: str, count: int, student_tail: bool, teacher_tail: bool) -> None:
    method, shapes = METHODS["fcfd"], PairShapes(CNN, WIDER, 8)
    needs = method.needs(shapes, method.complete({"extra_type": kind}))
    assert ("tail" in needs.student) == student_tail
    assert ("tail" in needs.teacher) == teacher_tail
    assert f"at most {count}" in refusal(shapes, extra_type=kind, extra_paths=count + 1)
    assert refusal(shapes, extra_type=kind, extra_paths=count) == ""
    trial = trial_of("fcfd", extra_type=kind)
    assert isinstance(trial.term, nn.Module)
    assert len(list(trial.term.get_submodule("to_student").children())) == 2 * student_tail


def test_paths_are_drawn_anew_in_each_step_and_the_same_for_all_workers() -> None:
    trial = trial_of("fcfd", weight_l2=0.0, w_kd=0.0, extra_paths=1)
    values = [trial.term(replace(trial.batch, key=key)).item() for key in range(40)]
    again = [trial.term(replace(trial.batch, key=key)).item() for key in range(40)]
    assert values == again
    assert len(set(values)) == 4


def test_every_parameter_has_a_gradient_in_every_step() -> None:
    # DistributedDataParallel waits for the gradient of each one.
    trial = trial_of("fcfd", extra_paths=1)
    assert isinstance(trial.term, nn.Module)
    for key in range(6):
        trial.term.zero_grad()
        trial.term(replace(trial.batch, key=key)).backward()
        assert all(parameter.grad is not None for parameter in trial.term.parameters())


def test_real_networks_train() -> None:
    torch.manual_seed(0)
    student = create_model("resnet8", 10, image_size=16, args={}, seed=0)
    teacher = create_model("resnet14", 10, image_size=16, args={}, seed=1)
    teacher.eval().requires_grad_(False)
    method = METHODS["fcfd"]
    shapes = PairShapes(student.shapes, teacher.shapes, 8)
    hyperparameters = method.complete({"l2_warmup_epochs": 0, "extra_paths": 4})
    assert method.refuse(shapes, hyperparameters) == ""
    term = method.build(shapes, hyperparameters)
    assert isinstance(term, nn.Module)
    needs = method.needs(shapes, hyperparameters)
    images = torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        taught = teacher.outputs(images, needs.teacher)
    optimiser = torch.optim.SGD([*student.parameters(), *term.parameters()], 0.05)
    values = []
    for step in range(8):
        outputs = student.outputs(images, needs.student)
        value = term(Batch(outputs, taught, torch.arange(8), key=step))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_refusals() -> None:
    shapes = PairShapes(CNN, WIDER, 8)
    assert refusal(shapes) == ""
    assert "at least 2 images, but got 1" in refusal(replace(shapes, batch_size=1))
    assert "but got 10 and 7" in refusal(replace(shapes, teacher=replace(WIDER, classes=7)))
    assert "must put out stage features" in refusal(replace(shapes, teacher=OutputShapes(10, 8)))
    cut = replace(shapes, student=replace(CNN, tail=False))
    assert "the student must be able to run from a stage's features" in refusal(cut)
    assert refusal(cut, extra_type="s2t") == refusal(cut, extra_paths=0) == ""
    stages = (*WIDER.stages[:3], (8, 1, 1))
    coarse = replace(shapes, teacher=replace(WIDER, stages=stages))
    assert "one twice the other's, but got 4 x 4 and 1 x 1" in refusal(coarse)
