"""Rules that join several sections of a study file. Each yields what breaks it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kdscale.errors import did_you_mean
from kdscale.losses import METHODS
from kdscale.search._axes import COMPUTE, Axis, axes_of, matching, targets
from kdscale.search._designs import DESIGNS, design_size
from kdscale.search._parameters import Parameter
from kdscale.search._problems import Violation
from kdscale.search._sections import (
    BudgetSpec,
    MetricSpec,
    ResourcesSpec,
    RungsSpec,
    SearchSpec,
)
from kdscale.search._seeds import seed_values
from kdscale.search._yaml import Keys, flow
from kdscale.training import SEARCHABLE_RECIPE_FIELDS, ObjectiveSpec, RecipeSpec, TaskSpec

_OF_LEVELS = ("grid", "oat")
_MODEL_BASED = ("tpe", "gp", "cmaes")
_STUDY_FIELDS = ("budget.trials", "budget.epochs", "search.method", "resources.workers", "seeds")


def broken_rules(sections: Mapping[str, Any]) -> list[Violation]:
    """Returns what breaks the rules whose sections are all there.

    Args:
        sections: The sections of a study that are sound by themselves, by name; ``parameters``
            are the sound ones, and ``all_parameters`` is there only if all are sound.
    """
    found: list[Violation] = []
    for rule in _RULES:
        needed = inspect.signature(rule).parameters
        if all(name in sections for name in needed):
            found.extend(rule(**{name: sections[name] for name in needed}))
    return found


def _names_mean_one_hyperparameter(
    parameters: dict[str, Parameter], objective: ObjectiveSpec, task: TaskSpec
) -> Iterator[Violation]:
    taken: dict[str, str] = {}
    for name in parameters:
        keys = ("parameters", name)
        hits = matching(name, objective)
        if not hits:
            yield _unknown_name(name, objective)
        elif len(hits) > 1:
            names = " or ".join(hit.name for hit in hits)
            yield Violation(keys, "must mean one hyperparameter", f"write {names}", f'"{name}"')
        elif hits[0].name in taken:
            rule = f"must not be a second spelling of {taken[hits[0].name]}"
            yield Violation(keys, rule, "remove one of them")
        else:
            taken[hits[0].name] = name
            place = _fixed_at(hits[0].owner, hits[0].hyperparameter.name, objective, task)
            if place:
                hint = f"remove {'.'.join(map(str, place))}, or this parameter"
                yield Violation(keys, "must not have a fixed value as well", hint)


def _unknown_name(name: str, objective: ObjectiveSpec) -> Violation:
    keys = ("parameters", name)
    field = name.removeprefix("recipe.")
    if field in RecipeSpec.model_fields:
        searchable = ", ".join(f"recipe.{known}" for known in SEARCHABLE_RECIPE_FIELDS)
        if field in SEARCHABLE_RECIPE_FIELDS:
            return Violation(keys, "must have its full name", f"write recipe.{field}", f'"{name}"')
        rule = "must be something in which the students of a cohort may differ"
        return Violation(keys, rule, f"of the recipe: {searchable}", f'"{name}"')
    known = [spelling for target in targets(objective) for spelling in reversed(target.names)]
    names = (target.name for target in targets(objective))
    hint = did_you_mean(name, [*known, *_STUDY_FIELDS]) or f"there are {', '.join(names)}"
    return Violation(keys, "must be a hyperparameter of the objective", hint, f'"{name}"')


def _fixed_at(owner: str, name: str, objective: ObjectiveSpec, task: TaskSpec) -> Keys:
    """Returns where the file fixes a hyperparameter, or nothing if it does not."""
    if not owner:
        return ("objective", name) if name in objective.model_fields_set else ()
    if owner == "recipe":
        return ("task", "recipe", name) if name in task.recipe.model_fields_set else ()
    for index, method in enumerate(objective.methods):
        if method.label == owner and name in method.fixed:
            return ("objective", "methods", index, name)
    return ()


def _values_are_allowed(
    parameters: dict[str, Parameter], objective: ObjectiveSpec
) -> Iterator[Violation]:
    for axis in axes_of(parameters, objective):
        yield from _forbidden_values(axis)


def _forbidden_values(axis: Axis) -> Iterator[Violation]:
    parameter, wanted = axis.parameter, axis.target.hyperparameter
    keys: Keys = ("parameters", axis.name)
    if parameter.min is not None and isinstance(wanted.default, bool | str):
        hint = f"write values: {flow(wanted.choices or (True, False))}"
        yield Violation(keys, f"must be a list of values, because {wanted.name} is no number", hint)
        return
    spelled: list[tuple[Keys, Any]] = [
        ((name,), value)
        for name in ("min", "max", "value")
        if (value := getattr(parameter, name)) is not None
    ]
    spelled += [(("values", index), value) for index, value in enumerate(parameter.values or ())]
    for at, value in spelled:
        if rule := wanted.broken_rule(value):
            yield Violation((*keys, *at), rule, did_you_mean(str(value), wanted.choices))
    if isinstance(wanted.default, int) and parameter.q and parameter.q != int(parameter.q):
        yield Violation((*keys, "q"), f"must be whole, because {wanted.name} is a whole number")


def _sound_axes(parameters: dict[str, Parameter], objective: ObjectiveSpec) -> list[Axis]:
    """Returns the axes that are searched and have nothing wrong with their values."""
    return [
        axis
        for axis in axes_of(parameters, objective)
        if axis.parameter.value is None and not list(_forbidden_values(axis))
    ]


def _method_can_search(
    search: SearchSpec, all_parameters: dict[str, Parameter]
) -> Iterator[Violation]:
    keys: Keys = ("search", "method")
    searched = _searched(all_parameters)
    # Parameters that overrides have fixed, all of them, leave one configuration: kdscale train.
    if not all_parameters and search.method != "grid":
        rule = f"must name something to search with search.method: {search.method}"
        yield Violation(("parameters",), rule, "method: grid runs the one configuration")
    if search.method == "oat" and searched and search.baseline is None:
        hint = f"write baseline: {{{', '.join(f'{name}: VALUE' for name in searched)}}}"
        yield Violation(keys, "must come with a baseline", hint)
    if search.method == "cmaes" and len(searched) == 1:
        yield Violation(keys, "must have two parameters or more", "write method: tpe")


def _parameters_suit_the_method(
    search: SearchSpec, parameters: dict[str, Parameter], objective: ObjectiveSpec
) -> Iterator[Violation]:
    for axis in _sound_axes(parameters, objective):
        keys: Keys = ("parameters", axis.name)
        if search.method in _OF_LEVELS and axis.count is None:
            rule = f"must have values or a step q with search.method: {search.method}"
            yield Violation(keys, rule, f"for example q: {(axis.high - axis.low) / 4:g}")
        if search.method == "cmaes" and axis.parameter.values is not None:
            rule = "must be a range of numbers with search.method: cmaes"
            yield Violation(keys, rule, "write min and max, and q for steps, or method: tpe")
        if search.method in _MODEL_BASED and not axis.samplable:
            rule = f"must have no steps on a logarithmic scale with search.method: {search.method}"
            hint = "write distribution: log_uniform_values without q, or list the values"
            yield Violation((*keys, "q"), rule, hint)


def _baseline_is_complete(
    search: SearchSpec, all_parameters: dict[str, Parameter]
) -> Iterator[Violation]:
    if search.baseline is None:
        return
    keys: Keys = ("search", "baseline")
    searched = _searched(all_parameters)
    for name in search.baseline:
        if name not in searched:
            hint = did_you_mean(name, searched) or f"there are {', '.join(searched)}"
            yield Violation((*keys, name), "must be a searched parameter", hint)
    absent = [name for name in searched if name not in search.baseline]
    if absent:
        rule = "must have a value for each searched parameter"
        yield Violation(keys, rule, f"add {', '.join(absent)}")


def _first_is_for_searches_of_any_length(search: SearchSpec) -> Iterator[Violation]:
    for name in ("first", "warm_start"):
        if not getattr(search, name):
            continue
        if search.method in DESIGNS:
            rule = f"must not be given with search.method: {search.method}"
            yield Violation(("search", name), rule, "which has its own configurations")
        if search.baseline is not None:
            yield Violation(("search", name), "must not be given with a baseline", "remove one")


def _first_is_in_space(
    search: SearchSpec, all_parameters: dict[str, Parameter], objective: ObjectiveSpec
) -> Iterator[Violation]:
    searched = _searched(all_parameters)
    for place, values in enumerate(search.first):
        keys: Keys = ("search", "first", place)
        if sorted(values) != sorted(searched):
            hint = f"which are {', '.join(searched)}"
            yield Violation(keys, "must have a value for each searched parameter, no other", hint)
        for axis in _sound_axes(all_parameters, objective):
            if axis.name in values and not axis.contains(values[axis.name]):
                spelled = axis.parameter.model_dump(exclude_none=True, mode="json")
                rule = f"must be in the space of {axis.name}"
                yield Violation((*keys, axis.name), rule, f"which is {flow(spelled)}")


def _baseline_is_in_space(
    search: SearchSpec, parameters: dict[str, Parameter], objective: ObjectiveSpec
) -> Iterator[Violation]:
    baseline = search.baseline or {}
    for axis in _sound_axes(parameters, objective):
        if axis.name in baseline and not axis.contains(baseline[axis.name]):
            spelled = axis.parameter.model_dump(exclude_none=True, mode="json")
            keys = ("search", "baseline", axis.name)
            rule = f"must be in the space of {axis.name}"
            yield Violation(keys, rule, f"which is {flow(spelled)}")


def _searched(parameters: dict[str, Parameter]) -> list[str]:
    return [name for name, parameter in parameters.items() if parameter.value is None]


def _trials_are_whole_configurations(budget: BudgetSpec, seeds: Any) -> Iterator[Violation]:
    count = len(seed_values(seeds))
    if budget.trials is not None and budget.trials % count:
        rule = f"must be a multiple of the number of seeds ({count})"
        yield Violation(("budget", "trials"), rule, _multiples(budget.trials, count))


def _trials_are_given(budget: BudgetSpec, search: SearchSpec) -> Iterator[Violation]:
    if budget.trials is None and search.method not in DESIGNS:
        rule = f"must be given with search.method: {search.method}"
        yield Violation(("budget", "trials"), rule, "trials = configurations x seeds")


def _trials_fit_the_design(
    budget: BudgetSpec,
    seeds: Any,
    search: SearchSpec,
    all_parameters: dict[str, Parameter],
    objective: ObjectiveSpec,
) -> Iterator[Violation]:
    ranges = search.method not in _OF_LEVELS
    sound = _sound_axes(all_parameters, objective)
    axes = [axis for axis in sound if ranges or axis.count is not None]
    whole = len(axes) == len(_searched(all_parameters))
    if budget.trials is None or search.method not in DESIGNS or not whole:
        return  # without a sound design it has no size
    if search.baseline is not None and any(axis.name not in search.baseline for axis in axes):
        return
    size = design_size(search, axes)
    count = len(seed_values(seeds))
    if budget.trials != size * count:
        rule = f"must be {size} configurations x {count} seeds with search.method: {search.method}"
        yield Violation(("budget", "trials"), rule, f"write {size * count}, or leave trials out")


def _workers_share_the_batch(task: TaskSpec, resources: ResourcesSpec) -> Iterator[Violation]:
    size, workers = task.recipe.batch_size, resources.workers
    if size % workers:
        rule = f"must be a multiple of resources.workers ({workers})"
        keys: Keys = ("task", "recipe", "batch_size")
        yield Violation(keys, rule, _multiples(size, workers), str(size))


def _rungs_lie_before_the_end(rungs: RungsSpec | None, budget: BudgetSpec) -> Iterator[Violation]:
    if rungs is not None and rungs.first >= budget.epochs:
        rule = f"must be < budget.epochs ({budget.epochs})"
        hint = f"write first: {max(1, budget.epochs // 4)}" if budget.epochs > 1 else "remove rungs"
        yield Violation(("rungs", "first"), rule, hint)


def _recipes_fit_the_epochs(task: TaskSpec, budget: BudgetSpec) -> Iterator[Violation]:
    yield from _recipe_fits(("task", "recipe"), task.recipe, "budget.epochs", budget.epochs)
    if task.teacher.weights is not None:
        return
    epochs = task.teacher.epochs or budget.epochs
    if task.teacher.recipe is not None:
        keys: Keys = ("task", "teacher", "recipe")
        yield from _recipe_fits(keys, task.teacher.recipe, "the teacher's epochs", epochs)
    elif list(_recipe_fits((), task.recipe, "", epochs)) and task.teacher.epochs is not None:
        rule = "must be > the milestones and the warm-up of task.recipe"
        hint = "or give the teacher a recipe of its own"
        yield Violation(("task", "teacher", "epochs"), rule, hint)


def _compression_suits_the_methods(task: TaskSpec, objective: ObjectiveSpec) -> Iterator[Violation]:
    cache = task.teacher.cache
    if not cache.enabled or cache.top_k is None:
        return
    known = [METHODS[method.method] for method in objective.methods]
    names = dict.fromkeys(m.name for m in known if m.all_classes and "logits" in m.reads)
    if names:
        keys: Keys = ("task", "teacher", "cache", "top_k")
        rule = f"must be null for methods that need the logits of all classes: {', '.join(names)}"
        yield Violation(keys, rule, "remove it; dtype: fp16 halves the cache")


def _recipe_fits(keys: Keys, recipe: RecipeSpec, name: str, epochs: int) -> Iterator[Violation]:
    rule = f"must be < {name} ({epochs})"
    for index, milestone in enumerate(recipe.milestones):
        if milestone >= epochs:
            hint = "milestones are epochs, counted from 1"
            yield Violation((*keys, "milestones", index), rule, hint)
    if recipe.warmup_epochs >= epochs:
        yield Violation((*keys, "warmup_epochs"), rule, "a shorter warm-up, or more epochs")


def _metric_fits_the_epochs(metric: MetricSpec, budget: BudgetSpec) -> Iterator[Violation]:
    if metric.n is not None and metric.n > budget.epochs:
        rule = f"must be <= budget.epochs ({budget.epochs})"
        yield Violation(("metric", "n"), rule, f"write n: {budget.epochs}")


def _clock_is_fair(budget: BudgetSpec, task: TaskSpec) -> Iterator[Violation]:
    if budget.match != "wall_clock":
        return
    said = "with budget.match: wall_clock"
    if task.teacher.cache.enabled:
        keys: Keys = ("task", "teacher", "cache", "enabled")
        rule = f"must be false {said}, where each trial pays for the live teacher"
        yield Violation(keys, rule, "write cache: {enabled: false}", "true")
    if task.recipe.executor in ("grouped", "vmap"):
        rule = f"must be auto or loop {said}: stacked students have no time of their own"
        yield Violation(("task", "recipe", "executor"), rule, "write executor: loop")
    if task.teacher.weights is None and task.teacher.epochs is None:
        rule = f"must be given {said}, where budget.epochs are parts of the students' seconds"
        yield Violation(("task", "teacher", "epochs"), rule, "the teacher's own epochs")


def _compute_is_compared(
    budget: BudgetSpec,
    search: SearchSpec,
    rungs: RungsSpec | None,
    parameters: dict[str, Parameter],
) -> Iterator[Violation]:
    keys: Keys = ("parameters", COMPUTE)
    if COMPUTE not in parameters:
        return
    if budget.match != "wall_clock":
        rule = "must be given only with budget.match: wall_clock"
        yield Violation(keys, rule, "it multiplies budget.seconds")
    if search.method in _MODEL_BASED:
        rule = f"must not be searched with search.method: {search.method}"
        yield Violation(keys, rule, "more compute nearly always wins; write method: grid")
    if rungs is not None:
        rule = f"must not be given with {COMPUTE}: rungs compare equal parts of unequal budgets"
        yield Violation(("rungs",), rule, "remove rungs")


def _multiples(number: int, of: int) -> str:
    below = number // of * of
    return f"write {below} or {below + of}" if below else f"write {of}"


_RULES: tuple[Callable[..., Iterator[Violation]], ...] = (
    _names_mean_one_hyperparameter,
    _values_are_allowed,
    _method_can_search,
    _parameters_suit_the_method,
    _baseline_is_complete,
    _baseline_is_in_space,
    _first_is_for_searches_of_any_length,
    _first_is_in_space,
    _trials_are_whole_configurations,
    _trials_are_given,
    _trials_fit_the_design,
    _workers_share_the_batch,
    _rungs_lie_before_the_end,
    _recipes_fit_the_epochs,
    _compression_suits_the_methods,
    _clock_is_fair,
    _compute_is_compared,
    _metric_fits_the_epochs,
)
