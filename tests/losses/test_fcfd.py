from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses import METHODS, Batch, Bridge, Needs, PairShapes, fcfd_appearance, kd
from kdscale.models import Network, create_model
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
    rest = [batch.teacher.tail(k, f) for k, f in enumerate(bridged_of(trial)[:2], start=1)]
    for place in (0, 1):
        f_s = to_student.get_submodule(str(place))(batch.teacher.stages[place + 1])
        rest.append(batch.student.tail(place + 1, f_s))
    soft = [kd(path.logits, batch.teacher.logits, temperature=2.0) for path in rest]
    torch.testing.assert_close(trial.term(batch), 0.2 * torch.stack(soft).sum())


@pytest.mark.parametrize(("kind", "later"), [("s2t", True), ("t2s", False)])
def test_the_teachers_later_stages_are_compared_with_its_own(kind: str, later: bool) -> None:
    trial = trial_of("fcfd", extra_type=kind, extra_paths=2, w_kd=0.0, w_mixture=0.0, weight_l2=2.0)
    teacher = trial.batch.teacher
    expected = appearance_of(trial)
    if later:
        assert teacher.tail is not None
        first, second, _ = bridged_of(trial)
        for f, k, j in ((first, 1, 2), (first, 1, 3), (second, 2, 3)):
            f_s = teacher.tail(k, f).stages[j]
            expected = expected + fcfd_appearance(f_s, teacher.stages[j], last=j == 3)
    value = trial.term(replace(trial.batch, epoch=10))  # of 20 in which the weight grows
    torch.testing.assert_close(value, 2.0 * 0.5 * expected)


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


def test_bridges_off_the_steps_paths_learn_nothing() -> None:
    trial = trial_of("fcfd", extra_paths=1)
    assert trial.method.skips
    assert isinstance(trial.term, nn.Module)
    seen = set()
    for key in range(12):
        trial.term.zero_grad(set_to_none=True)
        trial.term(replace(trial.batch, key=key)).backward()
        learn = {
            name.rsplit(".", 2)[0]
            for name, parameter in trial.term.named_parameters()
            if parameter.grad is not None
        }
        assert {f"to_teacher.{place}" for place in range(3)} <= learn
        seen.add(frozenset(name for name in learn if name.startswith("to_student")))
    assert seen == {frozenset(), frozenset({"to_student.0"}), frozenset({"to_student.1"})}


def pair_of(**given: Value) -> tuple[Network, Network, nn.Module, Needs]:
    """Returns a student, a frozen teacher, the built term and its needs."""
    torch.manual_seed(0)
    student = create_model("resnet8", 10, image_size=16, args={}, seed=0)
    teacher = create_model("resnet14", 10, image_size=16, args={}, seed=1)
    teacher.eval().requires_grad_(False)
    method = METHODS["fcfd"]
    shapes = PairShapes(student.shapes, teacher.shapes, 8)
    hyperparameters = method.complete({"l2_warmup_epochs": 0, "extra_paths": 4, **given})
    assert method.refuse(shapes, hyperparameters) == ""
    term = method.build(shapes, hyperparameters)
    assert isinstance(term, nn.Module)
    return student, teacher, term, method.needs(shapes, hyperparameters)


def official_value(networks: list[Network], bridges: nn.Module, images: Tensor) -> Tensor:
    """Follows the official loops: teacher 0, student 1, maps by network, stage and path."""
    paths = ["0000", "1111", "1100", "1110", "0011", "0001"]
    maps: list[dict[str, Tensor]] = [{}, {}]
    logits = []
    for path in paths:
        for stage, network in enumerate(int(number) for number in path):
            name = path[: stage + 1]
            if name in maps[network]:
                continue
            part = networks[network].get_submodule(f"stages.{stage}")
            found = part(maps[network][path[:stage]] if stage else images)
            maps[network][name] = found
            if stage and name == "1" * (stage + 1):
                maps[0][name] = bridges.get_submodule(f"to_teacher.{stage - 1}")(found)
            if stage in (1, 2) and name == "0" * (stage + 1):
                maps[1][name] = bridges.get_submodule(f"to_student.{stage - 1}")(found)
        last = networks[int(path[-1])]
        head = nn.Sequential(last.get_submodule("neck"), last.get_submodule("classifier"))
        logits.append(head(maps[int(path[-1])][path]))
    loss = torch.zeros(())
    for stage in (1, 2, 3):
        of_stage = [f for name, f in maps[0].items() if len(name) == stage + 1]
        target, *others = of_stage
        assert len(others) == stage
        for f in others:
            loss = loss + 5 * F.mse_loss(f, target)
            if stage == 3:
                pooled = (F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1) for x in (f, target))
                loss = loss + 5 * F.mse_loss(*pooled)
    target, *others = logits
    for z in others:
        log_q, p = F.log_softmax(z / 4, dim=1), F.softmax(target / 4, dim=1)
        loss = loss + 16 * F.kl_div(log_q, p, reduction="batchmean")
    return loss


def test_the_value_is_that_of_the_official_loops() -> None:
    student, teacher, term, needs = pair_of()
    images = torch.randn(8, 3, 16, 16)
    outputs = student.outputs(images, needs.student)
    value = term(Batch(outputs, teacher.outputs(images, needs.teacher), torch.arange(8)))
    with torch.no_grad():
        torch.testing.assert_close(value, official_value([teacher, student], term, images))


def test_mixed_paths_leave_the_students_running_statistics_alone() -> None:
    student, teacher, term, needs = pair_of(extra_type="t2s", extra_paths=2)
    images = torch.randn(8, 3, 16, 16)
    outputs = student.outputs(images, needs.student)
    before = [buffer.clone() for buffer in student.buffers()]
    term(Batch(outputs, teacher.outputs(images, needs.teacher), torch.arange(8))).backward()
    assert all(torch.equal(*pair) for pair in zip(student.buffers(), before, strict=True))


def test_real_networks_train() -> None:
    student, teacher, term, needs = pair_of()
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
