from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from kdscale.losses import METHODS, Schedule, TermConfig, common_hyperparameters
from kdscale.models import ZOO
from kdscale.training import (
    METHOD_SPECS,
    SEARCHABLE_RECIPE_FIELDS,
    ModelSpec,
    ObjectiveSpec,
    RecipeSpec,
    TaskSpec,
    TeacherSpec,
    spelled,
)


def refusal(model: type[BaseModel], data: dict[str, Any]) -> tuple[tuple[Any, ...], str]:
    """Returns place and message of the one error that a model finds."""
    with pytest.raises(ValidationError) as error:
        model.model_validate(data)
    [detail] = error.value.errors()
    return detail["loc"], detail["msg"]


def test_recipe_defaults_are_the_cifar_literatures() -> None:
    recipe = RecipeSpec()
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.nesterov) == (
        "sgd",
        0.05,
        0.9,
        False,
    )
    assert (recipe.weight_decay, recipe.batch_size) == (5e-4, 64)
    assert (recipe.schedule, recipe.milestones, recipe.gamma, recipe.min_lr) == (
        "cosine",
        (),
        0.1,
        0.0,
    )
    assert (recipe.precision, recipe.clip_norm, recipe.warmup_epochs) == ("fp32", None, 0)


@pytest.mark.parametrize(
    ("data", "field", "rule"),
    [
        ({"schedule": "milestones"}, "milestones", "must be given with schedule: milestones"),
        ({"milestones": [2, 4]}, "milestones", "must be given only with schedule: milestones"),
        ({"schedule": "milestones", "milestones": [4, 2]}, "milestones", "must ascend"),
        ({"schedule": "milestones", "milestones": [2, 2]}, "milestones", "must ascend"),
        ({"lr": 0}, "lr", "greater than 0"),
        ({"lr": float("nan")}, "lr", "finite"),
        ({"optimizer": "lamb"}, "optimizer", "'sgd' or 'adamw'"),
        ({"learning_rate": 1}, "learning_rate", "not permitted"),
    ],
)
def test_recipes_refuse(data: dict[str, Any], field: str, rule: str) -> None:
    loc, message = refusal(RecipeSpec, data)
    assert loc == (field,)
    assert rule in message


def test_searchable_recipe_fields_are_numbers_of_the_recipe() -> None:
    for name in SEARCHABLE_RECIPE_FIELDS:
        assert RecipeSpec.model_fields[name].annotation in (float, int, float | None)


def test_models_are_the_zoos_or_timms() -> None:
    assert ModelSpec(model="resnet8", args={"width": 6}).args == {"width": 6}
    assert ModelSpec(model="vit_tiny_patch16_224", args={"img_size": 32}).args == {"img_size": 32}
    assert ModelSpec(model="timm/resnet50").model == "timm/resnet50"
    for name in ZOO:
        assert ModelSpec(model=name).model == name
    assert "zoo or of timm" in refusal(ModelSpec, {"model": "resnet9"})[1]
    assert refusal(ModelSpec, {"model": "resnet8x4", "args": {"width": 6}}) == (
        ("args",),
        "must be an argument of resnet8x4 (none)",
    )


def test_only_a_teacher_that_is_trained_has_epochs_and_recipe() -> None:
    assert TeacherSpec(model="resnet8", epochs=3, recipe=RecipeSpec(lr=0.1)).epochs == 3
    given: dict[str, Any]
    for given in ({"epochs": 3}, {"recipe": {}}):
        data = {"model": "resnet8", "weights": "package:icons100-resnet8", **given}
        assert "only for a teacher that kdscale trains" in refusal(TeacherSpec, data)[1]


def test_a_task_is_immutable_and_strict_about_keys() -> None:
    model = {"model": "resnet8"}
    task = TaskSpec.model_validate(
        {"data": {"name": "icons100"}, "teacher": model, "student": model}
    )
    assert task.recipe == RecipeSpec()
    with pytest.raises(ValidationError, match="frozen"):
        task.recipe = RecipeSpec(lr=1)  # type: ignore[misc]


@pytest.mark.parametrize("name", METHODS)
def test_each_method_has_a_model_with_its_hyperparameters(name: str) -> None:
    spec = METHOD_SPECS[name].model_validate({"method": name})
    defaults = {item.name: item.default for item in METHODS[name].hyperparameters}
    common = {item.name: item.default for item in common_hyperparameters(METHODS[name])}
    assert spec.values == defaults | common
    assert spec.fixed == frozenset()
    assert spec.term({}) == TermConfig(name, name, METHODS[name].weight, defaults)
    for item in spelled(name):
        unbounded = item.low is None and item.high is None
        assert isinstance(item.default, str | bool) or not unbounded
        if not isinstance(item.default, str | bool) and item.low is not None:
            below = item.low if item.low_open else item.low - 1
            assert refusal(METHOD_SPECS[name], {"method": name, item.name: below})[0] == (
                item.name,
            )


def test_lambda_is_spelled_as_in_the_paper() -> None:
    objective = ObjectiveSpec.model_validate({"methods": [{"method": "rsd", "lambda": 2}]})
    [rsd] = objective.methods
    assert rsd.fixed == {"lambda"}
    assert rsd.values["lambda"] == 2.0
    dumped = objective.model_dump(mode="json")
    assert dumped["methods"][0]["lambda"] == 2.0
    assert ObjectiveSpec.model_validate(dumped) == objective
    assert (
        refusal(ObjectiveSpec, {"methods": [{"method": "rsd", "lambda_": 2}]})[0][-1] == "lambda_"
    )


def test_a_term_takes_searched_values_first() -> None:
    spec = METHOD_SPECS["kd"].model_validate({"method": "kd", "as": "soft", "weight": 0.5})
    term = spec.term({"temperature": 2, "weight": 3})
    assert (term.name, term.weight, term.hyperparameters) == ("soft", 3.0, {"temperature": 2.0})


def test_a_schedule_is_fixed_or_searched() -> None:
    given = {"method": "rsd", "schedule": "cosine", "warmup_epochs": 20, "per_worker": True}
    term = METHOD_SPECS["rsd"].model_validate(given).term({"stop_epoch": 100, "final_factor": 1})
    assert term.schedule == Schedule("cosine", 1.0, 20, 1, 100)
    assert term.per_worker


def test_lists_of_numbers_and_of_stages_are_checked() -> None:
    for method, key, good, bad in (
        ("ntce", "factors", "2 1.5 -1", "2,1"),
        ("at", "stages", "2 3", "2 x"),
    ):
        spec = METHOD_SPECS[method].model_validate({"method": method, key: good})
        assert spec.values[key] == good
        place, message = refusal(METHOD_SPECS[method], {"method": method, key: bad})
        assert place == (key,)
        assert message.startswith("must be ")


@pytest.mark.parametrize(
    ("methods", "rule"),
    [
        ([], "must name a method"),
        ([{"method": "kd"}, {"method": "kd"}], "a label of its own"),
        ([{"method": "kd", "as": "ce"}], "must be none of loss, ce"),
        ([{"method": "kd", "as": "a.b"}], "match pattern"),
        ([{"method": "kdd"}], "'kd', 'dkd', "),
        ([{"method": "kd", "temperature": 0}], "greater than 0"),
        ([{"method": "ldrld", "depth": 3.5}], "integer"),
        ([{"method": "rsd", "variant": "logit"}], "'embedding' or 'logits'"),
    ],
)
def test_objectives_refuse(methods: list[dict[str, Any]], rule: str) -> None:
    assert rule in refusal(ObjectiveSpec, {"methods": methods})[1]


def test_specs_pickle() -> None:
    objective = ObjectiveSpec.model_validate({"methods": [{"method": name} for name in METHODS]})
    assert pickle.loads(pickle.dumps(objective)) == objective
