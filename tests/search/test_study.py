from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError
from sweeps import study_file

from kdscale.errors import StudyFileError, UserError
from kdscale.search import Study, load_study

from .studies import DATA, load_data, load_text, make_study, study_data


def test_defaults_are_those_of_the_documentation() -> None:
    study = make_study()
    assert study.search.method == "tpe"
    assert (study.metric.name, study.metric.goal, study.metric.mode) == (
        "val_accuracy",
        "maximize",
        "last",
    )
    assert study.seed_list == (0,)
    assert study.rung_epochs == ()
    assert study.folder == Path("studies/small")
    assert study.generation_size == 8
    assert (study.configurations, study.trials) == (8, 8)
    assert study.undistilled


def test_numbers_that_follow_from_the_file() -> None:
    study = make_study(
        seeds=[3, 1],
        rungs={"eta": 3, "first": 2},
        budget={"trials": 8, "epochs": 18},
        search={"generation": 3},
        resources={"cohort": 4},
        storage={"folder": "elsewhere"},
    )
    assert study.seed_list == (3, 1)
    assert study.rung_epochs == (2, 6)  # 18 is the last epoch, no rung
    assert (study.configurations, study.trials) == (4, 8)
    assert study.generation_size == 3
    assert study.folder == Path("elsewhere/small")


def test_distributions_have_the_type_of_the_hyperparameter() -> None:
    study = make_study(
        objective={"methods": [{"method": "ldrld"}, {"method": "rsd"}]},
        parameters={
            "alpha": {"min": 2, "max": 14},
            "beta": {"min": 1, "max": 8, "distribution": "log_uniform_values"},
            "depth": {"min": 3, "max": 9, "q": 2},
            "kappa": {"min": 0.25, "max": 1, "q": 0.25, "distribution": "q_uniform"},
            "gamma": {"min": 1, "max": 4, "distribution": "log_uniform_values"},
            "lambda": {"values": [1, 2]},
            "variant": {"values": ["logits", "embedding"]},
            "include_group": {"values": [True, False]},
            "temperature": {"value": 2},
            "recipe.warmup_epochs": {"min": 0, "max": 2},
        },
    )
    assert study.distributions() == {
        "alpha": FloatDistribution(2.0, 14.0),
        "beta": FloatDistribution(1.0, 8.0, log=True),
        "depth": IntDistribution(3, 9, step=2),
        "kappa": FloatDistribution(0.25, 1.0, step=0.25),
        "gamma": IntDistribution(1, 4, log=True),
        "lambda": CategoricalDistribution((1.0, 2.0)),
        "variant": CategoricalDistribution(("logits", "embedding")),
        "include_group": CategoricalDistribution((True, False)),
        "recipe.warmup_epochs": IntDistribution(0, 2),
    }
    choices = study.distributions()["lambda"]
    assert isinstance(choices, CategoricalDistribution)
    assert [type(choice) for choice in choices.choices] == [float, float]


def test_resolve_fills_in_everything() -> None:
    study = make_study(
        objective={
            "methods": [
                {"method": "kd", "temperature": 2, "weight": 0.5},
                {"method": "kd", "as": "soft"},
                {"method": "rsd", "kappa": 0.5},
            ]
        },
        parameters={
            "ce_weight": {"min": 0, "max": 2},
            "soft.temperature": {"min": 1, "max": 8},
            "soft.weight": {"value": 3},
            "lambda": {"min": 0, "max": 1},
            "recipe.lr": {"min": 0.01, "max": 1},
            "recipe.warmup_epochs": {"values": [0, 2]},
        },
    )
    values = {
        "ce_weight": 1,
        "soft.temperature": 8,
        "lambda": 0.25,
        "recipe.lr": 1,
        "recipe.warmup_epochs": 2,
    }
    resolved = study.resolve(values)
    assert resolved.ce_weight == 1.0
    kd, soft, rsd = resolved.terms
    assert (kd.name, kd.method, kd.weight, kd.hyperparameters) == (
        "kd",
        "kd",
        0.5,
        {"temperature": 2.0},
    )
    assert (soft.name, soft.method, soft.weight) == ("soft", "kd", 3.0)
    assert soft.hyperparameters == {"temperature": 8.0}
    assert isinstance(soft.hyperparameters["temperature"], float)
    assert rsd.hyperparameters == {
        "lambda": 0.25,
        "kappa": 0.5,
        "gamma": 2,
        "variant": "embedding",
    }
    assert resolved.recipe == study.task.recipe.model_copy(update={"lr": 1.0, "warmup_epochs": 2})


@pytest.mark.parametrize("values", [{}, {"alpha": 3, "beta": 1}, {"beta": 1}])
def test_resolve_refuses_another_set_of_values(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match="values of alpha, but got"):
        make_study().resolve(values)


def test_resolve_refuses_what_the_method_refuses() -> None:
    with pytest.raises(UserError, match="alpha must be >= 0"):
        make_study().resolve({"alpha": -1})


def test_a_study_pickles_with_its_generated_models() -> None:
    study = make_study(
        objective={"methods": [{"method": "rsd", "lambda": 0.5}]},
        parameters={"kappa": {"min": 0, "max": 1}},
    )
    assert study.axes
    assert pickle.loads(pickle.dumps(study)) == study


def test_rules_hold_without_a_file_as_well() -> None:
    with pytest.raises(ValidationError, match=r"budget\.trials: must be a multiple .* \(3\)"):
        make_study(seeds=3)


def test_paths_are_relative_to_the_file_or_else_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "files", tmp_path / "work"
    for path in (folder / "images", elsewhere):
        path.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    task = {
        "data": {"name": "image_folder", "root": "images"},
        "teacher": {"model": "resnet8", "weights": "teacher.pt"},
        "student": {"model": "resnet8"},
    }
    study = load_data(study_data(task=task), folder)
    assert study.task.data.root == folder / "images"  # type: ignore[union-attr]
    assert study.task.teacher.weights == str(elsewhere / "teacher.pt")
    study = load_data(study_data(task=task), folder, "task.data.root=images")
    assert study.task.data.root == elsewhere / "images"  # type: ignore[union-attr]
    for name in ("timm", "package:icons100-resnet8"):
        study = load_data(study_data(task=task), folder, f"task.teacher.weights={name}")
        assert study.task.teacher.weights == name


@pytest.mark.parametrize("key", ["name", "tasks.0.name"])
def test_a_name_has_room_in_a_file_name(tmp_path: Path, key: str) -> None:
    path = study_file(tmp_path, tasks=[{"name": "a" * 100}])
    assert load_study(path, [f"{key}={'b' * 100}"]).tasks
    with pytest.raises(StudyFileError) as raised:
        load_study(path, [f"{key}={'b' * 101}"])
    [problem] = raised.value.problems
    assert (problem.path, problem.rule) == (key, "must have at most 100 characters")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("My Study", "my-study"), ("-x", "x"), ("a b/C", "a-b/c"), ("\N{SNOWMAN}", "")],
)
def test_a_name_of_other_characters_has_a_near_one(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(StudyFileError) as raised:
        load_study(study_file(tmp_path), [f'name="{name}"'])
    [problem] = raised.value.problems
    assert (problem.path, problem.value) == ("name", f'"{name}"')
    assert problem.rule.startswith("must be of a to z, 0 to 9")
    assert problem.hint == (f'did you mean "{hint}"?' if hint else "")


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, f"{'[' * 5000}{']' * 5000}", f"{'[' * 64}{']' * 64}", "&a [*a]"],
    ids=["unclosed", "closed", "few", "endless"],
)
def test_a_file_that_is_nested_too_deep_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(f"name: x\ntask: {text}\n")
    with pytest.raises(StudyFileError) as raised:
        load_study(path)
    assert str(raised.value) == f"{path}: must be nested at most 64 levels deep"


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("budget.trials=1000001", "must be <= 1000000"),
        ("seeds=10001", "must be <= 10000"),
        ("seeds={n: 10001}", "must be <= 10000"),
        (f"seeds={list(range(10001))}".replace(" ", ""), "must have at most 10000 entries"),
    ],
    ids=["trials", "seeds", "n", "list"],
)
def test_a_study_has_an_upper_bound(tmp_path: Path, override: str, rule: str) -> None:
    with pytest.raises(StudyFileError) as raised:
        load_study(study_file(tmp_path), [override])
    [problem] = raised.value.problems
    assert rule in problem.rule


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "cifar.yaml").write_text("name: x")
    with pytest.raises(UserError, match=r' \(did you mean ".*cifar\.yaml"\?\)$'):
        load_study(tmp_path / "cifra.yaml")


def test_problems_of_file_and_overrides_come_together_in_order(tmp_path: Path) -> None:
    text = "name: Bad\nbudget: {epochs: 0}\n"
    with pytest.raises(StudyFileError) as error:
        load_text(text, tmp_path, ("alpha=(", "seeds=0"))
    where = [problem.where for problem in error.value.problems]
    assert where == [*sorted(where[:-2]), "alpha=(", "seeds=0"]
    assert f"{tmp_path}/study.yaml:2" in where


def test_merge_keys_and_anchors_are_read(tmp_path: Path) -> None:
    text = """
name: small
task:
  data: {name: icons100}
  teacher: {model: resnet8, epochs: 4, recipe: &recipe {lr: 0.2, weight_decay: 1e-3}}
  student: {model: resnet8}
  recipe: {<<: *recipe, warmup_epochs: 1}
objective: {methods: [{method: ldrld}]}
parameters: {alpha: {min: 2, max: 14}}
budget: {trials: 8, epochs: 8}
"""
    recipe = load_text(text, tmp_path).task.recipe
    assert (recipe.lr, recipe.weight_decay, recipe.warmup_epochs) == (0.2, 1e-3, 1)


NUMBERS = st.floats(0.01, 100, allow_nan=False).map(lambda number: round(number, 6))


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["range", "log", "steps", "values", "value"]))
    low, span = draw(NUMBERS), draw(NUMBERS)
    if kind == "values":
        return {"values": draw(st.lists(NUMBERS, min_size=1, unique=True))}
    if kind == "value":
        return {"value": low}
    if kind == "steps":
        steps = draw(st.integers(1, 50))
        return {"min": low, "max": low + steps * span, "q": span}
    log = {"distribution": "log_uniform_values"} if kind == "log" else {}
    return {"min": low, "max": low + span, **log}


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(
        st.lists(st.sampled_from(["alpha", "beta", "kd.weight", "recipe.lr"]), unique=True)
    )
    spelled = {name: draw(parameters()) for name in names}
    searched = [name for name in names if "value" not in spelled[name]]
    seeds = draw(st.integers(1, 4))
    return study_data(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True)),
        objective={
            "ce_weight": draw(NUMBERS),
            "methods": [
                {"method": "kd", "temperature": draw(NUMBERS)},
                {"method": "ldrld", "depth": draw(st.integers(2, 9))},
            ],
        },
        parameters={"ldrld.temperature": {"min": 1, "max": 4}, **spelled},
        search={
            "method": draw(
                st.sampled_from(["random", "sobol", "tpe", "gp"] if searched else ["tpe"])
            ),
            "seed": draw(st.integers(0, 2**40)),
        },
        seeds=draw(st.sampled_from([seeds, list(range(5, 5 + seeds))])),
        budget={"trials": seeds * draw(st.integers(1, 9)), "epochs": draw(st.integers(1, 400))},
        tracking={
            "experiment": draw(
                st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8)
            )
        },
        undistilled=draw(st.booleans()),
    )


@given(studies())
@settings(max_examples=60, deadline=None)
def test_a_study_survives_being_written_and_read(data: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        study = load_data(data, Path(folder))
        assert study == Study.model_validate(data)
        again = load_text(study.to_yaml(), Path(folder))
    assert again == study
    assert again.distributions() == study.distributions()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["method", "name", "min", "values", "x", "alpha"]), inner, max_size=2
        )
    ),
    max_leaves=3,
)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_junk_anywhere_is_read_or_refused_with_a_line(data: st.DataObject) -> None:
    spoiled: Any = study_data(
        search={"method": "oat", "baseline": {"alpha": 3}},
        seeds=[0, 1],
        rungs={"first": 2},
        resources={"cohort": "auto"},
    )
    holder = {"study": spoiled}
    key: Any = "study"
    for _ in range(data.draw(st.integers(1, 4))):
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        holder = inner
        key = data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else [0]))
    holder[key] = data.draw(JUNK)
    with tempfile.TemporaryDirectory() as folder:
        try:
            load_data(spoiled, Path(folder))
        except StudyFileError as error:
            lines = [problem.where.rpartition(":")[2] for problem in error.problems]
            assert all(line.isdigit() for line in lines)


def test_to_yaml_has_every_default_but_those_of_parameters() -> None:
    text = make_study().to_yaml()
    assert "depth: 7" in text
    assert "weight_decay: 0.0005" in text
    assert "alpha: 10.5" not in text


def test_the_test_data_is_a_study() -> None:
    assert Study.model_validate(DATA) == make_study()


def test_a_teacher_trained_otherwise_has_another_folder() -> None:
    study = make_study()
    changes: list[dict[str, Any]] = [
        {"budget": {"trials": 2, "epochs": 7}},
        {"task": study.task.model_dump() | {"recipe": {"lr": 0.25}}},
        {"seeds": [5]},
    ]
    folders = {make_study(**change).teacher_folder for change in changes}
    assert len(folders | {study.teacher_folder}) == 4
    assert make_study(search={"method": "random"}).teacher_folder == study.teacher_folder
