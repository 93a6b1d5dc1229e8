"""Each broken study file gives every problem with its line, rule and hint, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdscale.errors import StudyFileError
from kdscale.search import load_study

BROKEN = Path(__file__).parent / "broken"
Expected = list[tuple[int, str, str, str]]  # line, path, part of the rule, part of the hint

EXPECTED: dict[str, Expected] = {
    "unknown_keys": [
        (5, "task.student.modle", "known key", 'did you mean "model"?'),
        (6, "task.recipe.learning_rate", "known key", "known: optimizer, lr, momentum"),
        (6, "task.recipe.momentun", "known key", 'did you mean "momentum"?'),
        (9, "objective.methods.0.temprature", "known key", 'did you mean "temperature"?'),
        (11, "parameters.alpha.step", "known key", "known: min, max, values, value, q"),
        (13, "serach", "known key", 'did you mean "search"?'),
    ],
    "wrong_types": [
        (3, "task.data.train_images", "must be a whole number", ""),
        (7, "task.recipe.lr", "must be a number", ""),
        (8, "task.recipe.nesterov", "must be true or false", ""),
        (9, "task.recipe.batch_size", "must be a whole number", ""),
        (10, "task.recipe.milestones", "must be a list", ""),
        (15, "parameters.alpha", "must be a mapping", ""),
        (16, "budget.trials", "must be a whole number", ""),
        (16, "budget.epochs", "must be a whole number", ""),
        (17, "seeds", "must be a whole number or a list", ""),
    ],
    "equal_compute": [
        (4, "task.teacher.cache.enabled", "must be false", "enabled: false"),
        (4, "task.teacher.epochs", "must be given with budget.match", "the teacher's own"),
        (6, "task.recipe.executor", "must be auto or loop", "executor: loop"),
        (12, "parameters.budget.compute", "must not be searched", "method: grid"),
        (14, "rungs", "must not be given with budget.compute", "remove rungs"),
    ],
    "match": [(12, "budget.match", "a study has one objective", "the same budget.trials")],
    "seconds": [(15, "budget.seconds", "only with match: wall_clock", "remove it")],
    "clock": [
        (11, "budget.seconds", "must be given with match: wall_clock", "for example 600"),
        (15, "budget.per_trial_seconds", "must not be given", "budget.seconds says it"),
    ],
    "unknown_names": [
        (1, "name", "must be of a to z", 'did you mean "broken-study"?'),
        (3, "task.data.name", "must be one of icons100", 'did you mean "icons100"?'),
        (4, "task.teacher.model", "zoo or of timm", 'did you mean "resnet'),
        (5, "task.student.model", "zoo or of timm", 'did you mean "wrn_40_'),
        (6, "task.recipe.optimizer", "must be sgd or adamw", 'did you mean "sgd"?'),
        (9, "objective.methods.0.method", "must be a known method", 'did you mean "ldrld"?'),
        (11, "parameters.alpha.distribution", "must be uniform", 'did you mean "uniform"?'),
        (
            12,
            "search.method",
            "must be grid, factorial, oat, random, sobol, lhs, tpe, gp or cmaes",
            "",
        ),
        (13, "metric.name", "must be val_accuracy", 'did you mean "val_accuracy"?'),
    ],
    "parameter_names": [
        (13, "parameters.alhpa", "hyperparameter of the objective", 'did you mean "alpha"?'),
        (14, "parameters.temperature", "one hyperparameter", "kd.temperature or local.temperature"),
        (15, "parameters.local.depth", "fixed value as well", "objective.methods.1.depth"),
        (16, "parameters.ce_weight", "fixed value as well", "objective.ce_weight"),
        (17, "parameters.recipe.weight_decay", "fixed value", "task.recipe.weight_decay"),
        (18, "parameters.recipe.batch_size", "students of a cohort may differ", "recipe.lr"),
        (19, "parameters.lr", "must have its full name", "recipe.lr"),
        (21, "parameters.local.beta", "must not be a second spelling of beta", ""),
        (22, "parameters.kd.weight", "fixed value as well", "objective.methods.0.weight"),
    ],
    "bounds": [
        (11, "parameters.alpha.min", "must be < max (2)", "swap min and max"),
        (12, "parameters.beta.min", "must be > 0 with distribution: log_uniform_values", "0.008"),
        (13, "parameters.depth.values.0", "must be >= 2", ""),
        (13, "parameters.depth.values.2", "must be a whole number", ""),
        (14, "parameters.temperature.min", "must be > 0", ""),
        (15, "parameters.include_group", "must be a list of values", "values: [true, false]"),
        (16, "parameters.variant.values.0", "embedding, logits", 'did you mean "logits"?'),
        (17, "parameters.gamma.max", "whole number of steps q", "write max: 3 or 5"),
        (18, "parameters.kappa.min", "must have max as well", "add max"),
        (19, "parameters.lambda.values", "at least 1 entry", ""),
        (20, "parameters.recipe.lr.values.2", "must be listed only once", "remove it"),
        (21, "parameters.recipe.momentum.value", "must be <= 1", ""),
        (22, "parameters.recipe.warmup_epochs", "either min and max, or values, or value", ""),
    ],
    "exponents": [
        (
            11,
            "parameters.alpha.distribution",
            "bounds that are exponents",
            "write distribution: log_uniform_values with min: 0.01, max: 10",
        ),
        (
            12,
            "parameters.beta.distribution",
            "bounds that are exponents",
            "write distribution: log_uniform_values with min: 0.025, max: 8.5",
        ),
        (
            14,
            "parameters.kappa.distribution",
            "bounds that are exponents",
            "write distribution: q_log_uniform_values with min: 0.04979, max: 2.718",
        ),
        (17, "parameters.lambda.distribution", "must have bounds", "write min and max"),
    ],
    "designs": [
        (10, "parameters.alpha", "must have values or a step q", "for example q: 3"),
        (15, "search.baseline", "a value for each searched parameter", "add alpha"),
        (15, "search.baseline.beta", "must be in the space of beta", "[1, 2, 4]"),
        (15, "search.baseline.depth", "must be in the space of depth", "q: 2"),
        (15, "search.baseline.gamma", "a searched parameter", "there are alpha, beta, depth"),
    ],
    "oat_without_baseline": [
        (12, "search.method", "must come with a baseline", "baseline: {alpha: VALUE, beta: VALUE}"),
    ],
    "cmaes": [
        (10, "parameters.depth", "must be a range of numbers", "write min and max"),
        (11, "search.method", "must have two parameters or more", "tpe"),
        (12, "budget.trials", "must be given with search.method: cmaes", "configurations x seeds"),
    ],
    "grid_trials": [
        (14, "budget.trials", "15 configurations x 2 seeds", "write 30, or leave trials out"),
    ],
    "arithmetic": [
        (4, "task.teacher.recipe.milestones.1", "must be < the teacher's epochs (4)", ""),
        (6, "task.recipe.batch_size", "multiple of resources.workers (4)", "write 48 or 52"),
        (6, "task.recipe.milestones.1", "must be < budget.epochs (8)", ""),
        (6, "task.recipe.warmup_epochs", "must be < budget.epochs (8)", ""),
        (12, "metric.n", "must be <= budget.epochs (8)", "write n: 8"),
        (14, "rungs.eta", "must be >= 2", ""),
        (15, "budget.trials", "multiple of the number of seeds (3)", "write 15 or 18"),
    ],
    "recipe": [
        (4, "task.teacher.epochs", "only for a teacher that kdscale trains", "remove weights"),
        (5, "task.student.args.widht", "an argument of resnet8 (width)", 'did you mean "width"?'),
        (8, "task.recipe.milestones", "must ascend", "write [4, 6]"),
        (12, "objective.methods.1.as", "must be none of loss, ce", ""),
        (15, "metric.n", "must be given with mode: mean_last_n", "n: 5"),
        (16, "seeds.2", "must be listed only once", ""),
    ],
    "compression": [
        (4, "task.teacher.cache.top_k", "need the logits of all classes: dkd, ldrld", "fp16"),
    ],
    "labels": [
        (1, "parameters", "something to search with search.method: tpe", "method: grid"),
        (10, "objective.methods.2.method", "kd is there 2 times", "as: kd_2"),
    ],
    "duplicate_keys": [
        (6, "task.teacher", "is on line 4 already", "remove one"),
        (11, "objective.methods.0.depth", "is on line 10 already", "remove one"),
        (14, "name", "is on line 1 already", "remove one"),
        (15, "budget.epochs", "must be >= 1", ""),
    ],
    "syntax": [(5, "", "must be YAML", "brackets")],
    "indentation": [(4, "", "must be YAML", "indentation")],
    "no_mapping": [(1, "", "must be a mapping", "name: NAME")],
    "missing": [
        (1, "parameters", "something to search with search.method: tpe", "method: grid"),
        (2, "task.teacher", "must be given", ""),
        (6, "objective.methods", "must name a method", "`kdscale methods` lists them"),
        (7, "budget.epochs", "must be given", ""),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_problem_has_its_line_rule_and_hint(name: str) -> None:
    path = BROKEN / f"{name}.yaml"
    with pytest.raises(StudyFileError) as error:
        load_study(path)
    found = [(problem.where, problem.path) for problem in error.value.problems]
    wanted = [(f"{path}:{line}", field) for line, field, _, _ in EXPECTED[name]]
    assert sorted(found) == sorted(wanted), "\n".join(map(str, error.value.problems))
    by_field = {problem.path: problem for problem in error.value.problems}
    for _, field, rule, hint in EXPECTED[name]:
        assert rule in by_field[field].rule
        assert hint in by_field[field].hint


def test_every_broken_file_is_expected_to_be_broken() -> None:
    assert {path.stem for path in BROKEN.glob("*.yaml")} == set(EXPECTED)


def test_a_problem_shows_the_value_as_it_was_written() -> None:
    with pytest.raises(StudyFileError) as error:
        load_study(BROKEN / "wrong_types.yaml")
    values = {problem.path: problem.value for problem in error.value.problems}
    assert values["task.recipe.lr"] == '"0.1"'
    assert values["budget.epochs"] == "true"
    assert values["task.recipe.batch_size"] == "64.5"
