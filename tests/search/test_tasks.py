from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kdscale.errors import StudyFileError
from kdscale.search import Study, designed_configuration

from .studies import load_data, load_text, make_study, study_data

GRID: dict[str, Any] = {
    "parameters": {"alpha": {"values": [2, 8]}, "beta": {"values": [0.5, 4]}},
    "search": {"method": "grid"},
    "seeds": 2,
    "budget": {"epochs": 8},
}


def of_tasks(*tasks: dict[str, Any], **sections: Any) -> Study:
    return make_study(**GRID | sections, tasks=list(tasks))


def test_each_task_is_a_study_of_its_own() -> None:
    study = of_tasks(
        {"name": "clean"},
        {"name": "noisy", "data": {"label_noise": 0.1}},
        {"name": "wide", "student": {"args": {"width": 32}}},
        storage={"folder": "elsewhere"},
    )
    clean, noisy, wide = study.studies
    assert [one.name for one in study.studies] == ["small/clean", "small/noisy", "small/wide"]
    assert clean.folder == Path("elsewhere/small/clean")
    assert clean == make_study(**GRID | {"storage": {"folder": "elsewhere"}}, name="small/clean")
    assert noisy.task.data.label_noise == 0.1
    assert wide.task.student.args == {"width": 32}
    assert {one.cache_folder for one in study.studies} == {Path("elsewhere/.cache/teachers")}


def test_a_study_without_tasks_is_its_own_only_study() -> None:
    study = make_study()
    assert study.studies == (study,)
    assert "tasks" not in study.to_yaml()


def test_designs_give_the_same_configurations_on_every_task() -> None:
    for method in ("random", "sobol", "lhs"):
        study = of_tasks(
            {"name": "a"},
            {"name": "b", "recipe": {"lr": 0.2}},
            parameters={"alpha": {"min": 2, "max": 8}},
            search={"method": method, "seed": 3},
            budget={"trials": 16, "epochs": 8},
        )
        first, second = study.studies
        for number in range(study.configurations):
            assert designed_configuration(first, number) == designed_configuration(second, number)


@pytest.mark.parametrize("method", ["tpe", "gp", "cmaes"])
def test_a_search_that_learns_is_refused(method: str, tmp_path: Path) -> None:
    data = study_data(
        parameters={"alpha": {"min": 2, "max": 8}, "beta": {"min": 1, "max": 8}},
        search={"method": method},
        tasks=[{"name": "a"}, {"name": "b"}],
    )
    with pytest.raises(StudyFileError) as caught:
        load_data(data, tmp_path)
    assert str(caught.value).count("\n") == 0
    assert "search.method: must be one of grid, factorial, oat, random, sobol, lhs" in str(
        caught.value
    )


def test_another_network_or_data_set_starts_afresh() -> None:
    study = of_tasks(
        {"name": "other", "student": {"model": "resnet14"}},
        {"name": "same", "student": {"model": "resnet8", "args": {}}},
        {"name": "photos", "data": {"name": "cifar10", "root": "x"}},
        task={
            "data": {"name": "icons100", "train_images": 400},
            "teacher": {"model": "resnet8"},
            "student": {"model": "resnet8", "args": {"width": 8}},
        },
    )
    other, same, photos = study.studies
    assert (other.task.student.model, other.task.student.args) == ("resnet14", {})
    assert same.task.student.args == {"width": 8}
    assert (photos.task.data.name, photos.task.data.train_images) == ("cifar10", None)


def test_ablations_change_objective_and_parameters() -> None:
    study = of_tasks(
        {"name": "both"},
        {"name": "no-labels", "objective": {"ce_weight": 0}},
        {
            "name": "kd",
            "objective": {"methods": [{"method": "kd"}]},
            "parameters": {"alpha": None, "beta": None, "temperature": {"values": [2, 4]}},
        },
        {"name": "plain", "recipe": {"lr": None}},
        task=study_data()["task"] | {"recipe": {"lr": 0.2}},
    )
    both, no_labels, kd, plain = study.studies
    assert both.objective.ce_weight == 1.0
    assert no_labels.objective.ce_weight == 0.0
    assert [axis.name for axis in kd.axes] == ["temperature"]
    assert (both.task.recipe.lr, plain.task.recipe.lr) == (0.2, make_study().task.recipe.lr)


def test_a_task_may_have_nothing_to_search() -> None:
    study = of_tasks({"name": "a"}, parameters={})
    assert study.studies[0].configurations == 1


def test_the_file_written_back_gives_the_same_tasks(tmp_path: Path) -> None:
    study = of_tasks(
        {"name": "a", "recipe": {"optimizer": "adamw", "lr": None}},
        {"name": "b", "parameters": {"beta": None}},
        task=study_data()["task"] | {"recipe": {"lr": 0.2}},
        tracking={"experiment": "ours"},
    )
    again = load_text(study.to_yaml(), tmp_path)
    assert again.studies == study.studies
    assert again.to_yaml() == study.to_yaml()
    for number, one in enumerate(study.studies):
        (tmp_path / f"{number}").mkdir()
        assert load_text(one.to_yaml(), tmp_path / f"{number}") == one
    assert [one.tracking.experiment for one in study.studies] == ["ours/a", "ours/b"]


def test_tasks_share_the_teacher_that_they_would_train_alike() -> None:
    study = of_tasks(
        {"name": "clean"},
        {"name": "noisy", "data": {"label_noise": 0.1}},
        {"name": "fewer", "data": {"train_images": 400}},
    )
    clean, noisy, fewer = (one.teacher_folder for one in study.studies)
    assert clean == noisy != fewer
    assert clean.parent == Path("studies/small/teacher")


def test_everything_wrong_is_said_at_the_tasks_line(tmp_path: Path) -> None:
    text = """name: small
task:
  data: {name: icons100}
  teacher: {model: resnet8}
  student: {model: resnet8}
objective:
  methods: [{method: ldrld}]
parameters:
  alpha: {values: [2, 8]}
search: {method: grid}
budget: {epochs: 8}
tasks:
  - name: a
    data: {label_nois: 0.1}
  - name: b
    student:
      model: resnet8x5
  - {name: c, objective: {methods: [{method: kd}]}}
"""
    with pytest.raises(StudyFileError) as caught:
        load_text(text, tmp_path)
    first, second, third = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}/study.yaml:14: tasks.0.data.label_nois: must be a known")
    assert "did you mean" in first
    assert "study.yaml:17: tasks.1.student.model: must be a model" in second
    assert "study.yaml:18: tasks.2.parameters.alpha: must be a hyperparameter" in third


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["a", "a"], "must be a name of its own"),
        (["teacher"], "must not be the name of something else"),
        (["undistilled"], "must not be the name of something else"),
        (["report.html"], "must not be the name of something else"),
        (["a/b"], "must match|String should match"),
    ],
)
def test_names_that_a_folder_cannot_have(names: list[str], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        of_tasks(*({"name": name} for name in names))


def test_overrides_hold_for_all_tasks_that_do_not_say_otherwise(tmp_path: Path) -> None:
    data = study_data(**GRID, tasks=[{"name": "a"}, {"name": "b", "recipe": {"lr": 0.3}}])
    study = load_data(data, tmp_path, "task.recipe.lr=0.2", "seeds=3", "tasks.1.recipe.lr=0.4")
    assert [one.task.recipe.lr for one in study.studies] == [0.2, 0.4]
    assert [one.trials for one in study.studies] == [12, 12]


def test_files_named_by_a_task_are_found_beside_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").touch()
    data = study_data(
        **GRID, tasks=[{"name": "a"}, {"name": "b", "teacher": {"weights": "teacher.pt"}}]
    )
    study = load_data(data, tmp_path)
    assert study.studies[1].task.teacher.weights == str(tmp_path / "teacher.pt")
    assert study.studies[0].task.teacher.weights is None
