"""Stacked students beside the loop: the same numbers but for rounding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from kdscale.errors import UserError
from kdscale.losses import TermConfig
from kdscale.models import create_model
from kdscale.training import Group, Member, ModelSpec, RecipeSpec, checkpoint_path
from kdscale.training._executor import Steps, fastest
from kdscale.training._step import Lesson
from kdscale.training._student import Student, union_of_needs

from .tasks import (
    RECIPE,
    VIT,
    VIT_ARGS,
    Outcome,
    assert_same,
    cohort_of,
    files_of,
    members,
    recipe_with,
    train,
)

CLASSES, BATCH, SIZE = 10, 8, 16
MIXER = ModelSpec(model="mixer_s16_224", args={"img_size": 2 * SIZE, "mlp_ratio": [0.05, 0.1]})
SMALL_VIT = ModelSpec(model=VIT.model, args=VIT_ARGS | {"img_size": SIZE, "patch_size": 4})
DROPOUT = ModelSpec(
    model=VIT.model,
    args=SMALL_VIT.args | {"drop_rate": 0.2, "proj_drop_rate": 0.2, "drop_path_rate": 0.2},
)
CNNS = [ModelSpec(model=name) for name in ("resnet8x4", "wrn_16_1", "vgg8", "mobilenetv2")]
STACKED = [
    *(("grouped", model) for model in CNNS),
    *(("vmap", model) for model in (SMALL_VIT, DROPOUT, MIXER, CNNS[1])),
]
IDS = [f"{kind}-{model.model}-{len(model.args)}" for kind, model in STACKED]
CNN_TERMS = ("cat_kd", "ofd", "kd")
TERMS = ("rsd", "kd", "dkd")


def students_of(model: ModelSpec, count: int, dtype: torch.dtype) -> list[Student]:
    """Returns students with a method and a learning rate of their own, at the first epoch."""
    size = size_of(model)
    teacher = create_model("resnet8", CLASSES, image_size=size, args={"width": 6}, seed=9).eval()
    methods = CNN_TERMS if model in CNNS else TERMS
    students = []
    for number in range(count):
        recipe = RecipeSpec(lr=1e-3 * (1 + number), batch_size=BATCH, clip_norm=5.0)
        terms = (TermConfig(methods[number], methods[number]),)
        student = Student(
            Member(methods[number], 1.0, terms, recipe, Path("nowhere")),
            model,
            seed=5,
            epochs=1,
            num_classes=CLASSES,
            image_size=size,
            teacher=teacher,
            train_labels=torch.arange(40) % CLASSES,
            group=Group(),
        )
        student._step.to(dtype)
        student.start_epoch()
        students.append(student)
    return students


def size_of(model: ModelSpec) -> int:
    """Returns the side of the images: MobileNetV2 is chaotic where its last maps are 1 x 1."""
    return int(model.args.get("img_size", 2 * SIZE if model.model == "mobilenetv2" else SIZE))


def lesson_of(
    number: int, students: Sequence[Student], dtype: torch.dtype, size: int = SIZE
) -> Lesson:
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(BATCH, 3, size, size, generator=generator).to(dtype)
    teacher = create_model("resnet8", CLASSES, image_size=size, args={"width": 6}, seed=9)
    with torch.no_grad():
        outputs = teacher.eval().to(dtype).outputs(images, union_of_needs(students))
    target = torch.randint(CLASSES, (BATCH,), generator=generator)
    return Lesson(images, outputs, target, torch.arange(BATCH), None, None, number)


def taken(
    kind: str, model: ModelSpec, count: int, steps: int, dtype: torch.dtype, *, drop: bool = False
) -> list[Student]:
    """Returns students after some steps; the last one drops out after each third of them."""
    students = students_of(model, count, dtype)
    taking = Steps(recipe_with(executor=kind), Group())
    for number in range(steps):
        going = students[: count - (3 * number // steps if drop else 0)]
        taking.take(going, lesson_of(number, students, dtype, size_of(model)))
    taking.close()
    return students


def furthest(stacked: list[Student], looped: list[Student], model: ModelSpec) -> float:
    """Returns the largest distance of two students' weights, relative to how far they moved."""
    start = students_of(model, len(looped), torch.float32)
    worst = 0.0
    for a, b, c in zip(stacked, looped, start, strict=True):
        one, other, first = (numbers(student) for student in (a, b, c))
        worst = max(worst, float((one - other).norm() / (other - first).norm()))
        sums = (a._sums - b._sums).abs() / b._sums.abs().clamp(min=1)
        worst = max(worst, float(sums.max()))
    return worst


def numbers(student: Student) -> Tensor:
    return torch.cat([part.double().flatten() for part in student.network.state_dict().values()])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "model"), STACKED, ids=IDS)
def test_thirty_steps_in_float64_are_the_loops(kind: str, model: ModelSpec) -> None:
    looped = taken("loop", model, 3, 30, torch.float64, drop=True)
    stacked = taken(kind, model, 3, 30, torch.float64, drop=True)
    # Float64 rounds at 1e-16, and 30 steps multiply that.
    assert furthest(stacked, looped, model) < 1e-8


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("kind", "model"), STACKED, ids=IDS)
def test_a_step_in_float32_is_the_loops(kind: str, model: ModelSpec, count: int) -> None:
    looped = taken("loop", model, count, 1, torch.float32)
    stacked = taken(kind, model, count, 1, torch.float32)
    assert furthest(stacked, looped, model) < 1e-4


def losses_of(outcome: Outcome) -> list[float]:
    return [v for row in outcome.rows for name, v in row.items() if name.endswith(("loss", "ce"))]


EVERY = ("kd", "deep", "rsd", "crd", "undistilled", "views", "simkd")


def test_all_kinds_of_members_train_in_a_stacked_cohort(tmp_path: Path) -> None:
    """Two of them cannot be stacked; after an epoch one is dropped, and one has diverged."""

    def run(executor: str) -> tuple[dict[str, Outcome], dict[str, Any]]:
        recipes = {name: recipe_with(executor=executor, batch_size=100) for name in EVERY}
        recipes["wild"] = recipe_with(executor=executor, batch_size=100, lr=1e30)
        trials = members(tmp_path / executor, *EVERY, "wild", recipes=recipes)

        outcomes = train(cohort_of(trials, epochs=2, until=1))
        going = tuple(member for member in trials if member.name not in ("kd", "wild"))
        outcomes |= train(cohort_of(going, epochs=2))
        return outcomes, {member.name: files_of(member) for member in trials}

    outcomes, files = run("grouped")
    expected, wanted = run("loop")
    assert (outcomes["kd"].status, outcomes["wild"].status) == ("running", "failed")
    assert outcomes["wild"] == expected["wild"]
    for name, outcome in outcomes.items():
        assert outcome.status == expected[name].status
        assert losses_of(outcome) == pytest.approx(losses_of(expected[name]), rel=1e-3)
        assert list(files[name]) == list(wanted[name])
    for name in EVERY:
        sizes = [
            checkpoint_path(tmp_path / executor / name).stat().st_size
            for executor in ("grouped", "loop")
        ]
        assert abs(sizes[0] - sizes[1]) < 2000  # a file holds one student, not all


def test_a_stacked_member_whose_objective_raises_fails_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compute = Student.compute

    def broken(self: Student, *given: Any) -> None:
        if self.member.name == "kd" and self.epoch == 1:
            raise RuntimeError("no such thing")
        compute(self, *given)

    recipe = recipe_with(executor="grouped")
    names = ("dkd", "kd", "rsd")
    alone = train(cohort_of(members(tmp_path / "two", "dkd", "rsd", recipes=of(recipe, names))))
    monkeypatch.setattr(Student, "compute", broken)
    outcomes = train(cohort_of(members(tmp_path / "three", *names, recipes=of(recipe, names))))
    assert outcomes["kd"].status == "failed"
    assert outcomes["kd"].reason == "error at epoch 2: RuntimeError: no such thing"
    for name, outcome in alone.items():
        assert losses_of(outcomes[name])[:2] == pytest.approx(losses_of(outcome)[:2], rel=1e-3)
        assert outcomes[name].status == "done"


def of(recipe: RecipeSpec, names: Sequence[str]) -> dict[str, RecipeSpec]:
    return dict.fromkeys(names, recipe)


def test_a_stacked_cohort_resumes_from_its_checkpoints(tmp_path: Path) -> None:
    recipes = of(recipe_with(executor="grouped"), ("kd", "rsd"))
    trials = members(tmp_path, "kd", "rsd", recipes=recipes)
    whole = members(tmp_path / "whole", "kd", "rsd", recipes=recipes)
    train(cohort_of(trials, until=1))
    resumed, expected = train(cohort_of(trials)), train(cohort_of(whole))
    assert resumed == expected
    for one, other in zip(trials, whole, strict=True):
        assert_same(files_of(one), files_of(other))


@pytest.mark.parametrize(
    ("executor", "model", "reason"),
    [
        ("grouped", VIT, r"model: a VisionTransformer has no form for several students"),
        ("grouped", ModelSpec(model="shufflenetv2"), r"stacked, its logits is another"),
    ],
)
def test_a_network_that_mixes_channels_is_refused(
    executor: str, model: ModelSpec, reason: str, tmp_path: Path
) -> None:
    recipes = of(recipe_with(executor=executor), ("kd", "dkd"))
    rule = rf"recipe.executor: {executor} cannot train this student: {reason} \(write executor: "
    with pytest.raises(UserError, match=rule):
        train(cohort_of(members(tmp_path, "kd", "dkd", recipes=recipes), model=model))


def test_timing_changes_nothing() -> None:
    students = students_of(CNNS[1], 2, torch.float32)
    before = [{n: v.clone() for n, v in s._step.state_dict().items()} for s in students]
    state = torch.get_rng_state()
    assert fastest(students, lesson_of(0, students, torch.float32), Group()) in (
        None,
        "grouped",
        "vmap",
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert_same([dict(s._step.state_dict()) for s in students], before)
    assert all(p.grad is None for s in students for p in s.parameters)


def test_auto_is_the_loop_on_a_cpu(tmp_path: Path) -> None:
    outcomes = []
    for executor in ("auto", "loop"):
        recipes = of(recipe_with(executor=executor), ("kd", "rsd"))
        trials = members(tmp_path / executor, "kd", "rsd", recipes=recipes)
        outcomes.append((train(cohort_of(trials)), [files_of(member) for member in trials]))
    assert_same(outcomes[0][1], outcomes[1][1])
    assert outcomes[0][0] == outcomes[1][0]


def test_compiled_students_are_not_stacked() -> None:
    with pytest.raises(ValidationError, match="must be auto or loop for students that are compile"):
        recipe_with(compile=True, executor="grouped")
    assert replace_compile("reduce-overhead").compile == "reduce-overhead"
    with pytest.raises(ValidationError):
        replace_compile("fastest")


def replace_compile(mode: str) -> RecipeSpec:
    return RecipeSpec.model_validate(RECIPE.model_dump() | {"compile": mode})
