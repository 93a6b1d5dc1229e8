from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

import kdscale
from kdscale.data import ArraySplit, Icons100Spec, TaskData, load_data
from kdscale.losses import METHODS, PairShapes
from kdscale.models import Network, create_model
from kdscale.records import Value
from kdscale.search import Study, designed_configuration, load_study
from kdscale.search._designs import DESIGNS, SPACE_FILLING
from kdscale.search._schema import study_schema
from kdscale.training import Cohort, Group, Member, RecipeSpec, train_cohort

ROOT = Path(kdscale.__file__).parent.parent
FOLDER = ROOT / "search_spaces"
SHIPPED = sorted(FOLDER.glob("*/*.yaml"))
NAMES = [str(path.relative_to(FOLDER)) for path in SHIPPED]
BROKEN = sorted((Path(__file__).parent / "broken").glob("*.yaml"))

BATCH_SIZE = 16
"""Of the stand-in, which has one batch of 32 x 32 pixels."""

SMALLER_ARGS = {"swin_tiny_patch4_window7_224": {"img_size": 32}}
"""What makes a network of the studies take the stand-in's images."""


def plain(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def test_the_schema_is_fresh() -> None:
    made = json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"
    assert (FOLDER / "schema.json").read_text() == made, (
        "run: python -m kdscale.search._schema > search_spaces/schema.json"
    )


def test_the_schema_is_a_schema_that_completes_every_hyperparameter() -> None:
    schema = study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, method in METHODS.items():
        [spec] = [
            spec
            for spec in schema["$defs"].values()
            if spec.get("properties", {}).get("method", {}).get("const") == name
        ]
        for hyperparameter in method.hyperparameters:
            field = spec["properties"][hyperparameter.name]
            assert field["default"] == hyperparameter.default
            assert field["description"] == hyperparameter.help


def test_every_field_of_the_schema_is_described() -> None:
    schema = study_schema()
    models = [schema, *schema["$defs"].values()]
    for model in models:
        for name, field in model.get("properties", {}).items():
            referred = schema["$defs"].get(field.get("$ref", "").removeprefix("#/$defs/"), {})
            assert field.get("description") or referred.get("description"), (model["title"], name)


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_shipped_studies_load_and_fit_the_schema(path: Path) -> None:
    jsonschema.validate(plain(path), study_schema())
    study = load_study(path)
    assert study.configurations >= 8
    if study.search.method in (*DESIGNS, *SPACE_FILLING) or study.baseline:
        study.resolve(designed_configuration(study, 0))
    if study.baseline is not None:
        assert designed_configuration(study, 0) == study.baseline


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_shipped_studies_open_with_schema_command_and_source(path: Path) -> None:
    first, _, command, *rest = path.read_text().splitlines()
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / schema).resolve() == FOLDER / "schema.json"
    assert command.startswith(f"# kdscale sweep search_spaces/{path.relative_to(FOLDER)}")
    comment = "\n".join(line for line in rest if line.startswith("#"))
    assert re.search(r"(ICCV|CVPR|ICLR|Sensors|arXiv)", comment)


def test_shipped_studies_have_names_of_their_own() -> None:
    names = [load_study(path).name for path in SHIPPED]
    assert len(set(names)) == len(names)


def test_the_schema_refuses_what_an_editor_can_see() -> None:
    refused = {
        path.stem
        for path in BROKEN
        if path.stem not in ("syntax", "indentation", "duplicate_keys")
        and not jsonschema.Draft202012Validator(study_schema()).is_valid(plain(path))
    }
    assert {"unknown_keys", "wrong_types", "unknown_names", "exponents", "missing"} <= refused


def test_every_classification_method_has_a_study() -> None:
    studied = {m.method for path in SHIPPED for m in load_study(path).objective.methods}
    assert studied == {name for name, method in METHODS.items() if not method.dense}


def test_the_readme_lists_every_study() -> None:
    listed = re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", (FOLDER / "README.md").read_text(), re.M)
    assert sorted(listed) == sorted(NAMES)


def _middle(study: Study) -> dict[str, Value]:
    return {axis.name: axis.draw(0.5) for axis in study.axes}


@cache
def stand_in() -> TaskData:
    whole = load_data(Icons100Spec(train_images=100))
    assert isinstance(whole.train, ArraySplit)
    assert isinstance(whole.validation, ArraySplit)
    return replace(
        whole,
        train=whole.train.subset(np.arange(BATCH_SIZE)),
        validation=whole.validation.subset(np.arange(0, 1225, 200)),
    )


@cache
def random_teacher(model: str) -> Network:
    network = create_model(model, 100, args=SMALLER_ARGS.get(model, {}), seed=0)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_shipped_studies_train(path: Path, tmp_path: Path) -> None:
    study = load_study(path)
    resolved = study.resolve(study.baseline or _middle(study))
    recipe = RecipeSpec.model_validate(resolved.recipe.model_dump() | {"batch_size": BATCH_SIZE})
    member = Member(
        "it", resolved.ce_weight, resolved.terms, recipe, tmp_path, resolved.ce_start_epoch
    )
    cohort = Cohort(study.task.student, (member,), seed=0, epochs=1)
    teacher = random_teacher(study.task.teacher.model)
    *_, [last] = train_cohort(cohort, stand_in(), teacher, Group())
    assert last.status == "done", last.reason
    [row] = last.rows
    assert all(math.isfinite(value) for value in row.values())
    assert all(row[f"train_{term.name}"] != 0 for term in resolved.terms)


@pytest.mark.parametrize("path", SHIPPED, ids=NAMES)
def test_shipped_studies_fit_their_own_networks(path: Path) -> None:
    study = load_study(path)
    size = study.task.data.image_size
    models = study.task.student, study.task.teacher
    student, teacher = (
        create_model(spec.model, 100, image_size=size, args=spec.args, seed=0) for spec in models
    )
    labels = torch.arange(100).repeat(10)
    shapes = PairShapes(student.shapes, teacher.shapes, study.task.recipe.batch_size, labels)
    for term in study.resolve(study.baseline or _middle(study)).terms:
        assert not METHODS[term.method].refusal(shapes, dict(term.hyperparameters))


def test_ldrld_table_11_has_the_papers_cells() -> None:
    study = load_study(FOLDER / "ldrld/cifar100-resnet56-resnet20.yaml")
    cells = [designed_configuration(study, number) for number in range(study.configurations)]
    alphas = [6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0]
    betas = [0.75, 1.0, 1.25, 1.5, 2.0, 2.25, 2.5, 3.0, 4.0]
    assert len(cells) == len(alphas) + len(betas) - 1
    assert sorted(cell["alpha"] for cell in cells if cell["beta"] == 1.0) == alphas
    assert sorted(cell["beta"] for cell in cells if cell["alpha"] == 9.5) == betas
    assert study.trials == 17 * 5
