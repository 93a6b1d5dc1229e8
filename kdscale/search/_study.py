"""The study: what a study file adds up to, and how it is loaded and written."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from optuna.distributions import BaseDistribution
from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from kdscale.errors import Problem, StudyFileError, UserError
from kdscale.losses import TermConfig
from kdscale.records import Value
from kdscale.search._apply_overrides import Overridden, apply_overrides
from kdscale.search._axes import Axis, axes_of
from kdscale.search._designs import DESIGNS, SPACE_FILLING, baseline_of, design_size
from kdscale.search._parameters import Parameter
from kdscale.search._problems import Violation, problems_of, violations_of
from kdscale.search._rules import broken_rules
from kdscale.search._sections import (
    BudgetSpec,
    MetricSpec,
    ResourcesSpec,
    RungsSpec,
    SearchSpec,
    StorageSpec,
    TrackingSpec,
)
from kdscale.search._seeds import Seeds, race_tolerance, seed_values, unique_seeds
from kdscale.search._tasks import NAME, TaskChanges, check_name, in_task, names_broken, task_data
from kdscale.search._yaml import Keys, dump_yaml, read_yaml
from kdscale.training import ObjectiveSpec, RecipeSpec, Spec, TaskSpec
from kdscale.urls import drop_password

_GENERATION = 8
_PATHS: tuple[Keys, ...] = (("teacher", "weights"), ("data", "root"))


@dataclass(frozen=True)
class Resolved:
    """What one configuration trains with, everything filled in.

    Attributes:
        ce_weight: Weight of the cross-entropy.
        terms: The methods, their hyperparameters complete.
        recipe: The students' recipe.
        ce_start_epoch: The first epoch with the cross-entropy.
        seconds: Seconds of training compute; None where the budget is epochs.
    """

    ce_weight: float
    terms: tuple[TermConfig, ...]
    recipe: RecipeSpec
    ce_start_epoch: int
    seconds: float | None = None


class Study(Spec):
    """A task, an objective, a search space, a budget and seeds: one study file."""

    name: Annotated[str, BeforeValidator(check_name)] = Field(pattern=rf"^{NAME}(/{NAME})?$")
    """Names the study folder and the MLflow experiment; of one task of a study, STUDY/TASK."""

    task: TaskSpec
    """Data set, teacher, student and training recipe."""

    objective: ObjectiveSpec
    """What students minimise."""

    parameters: dict[str, Parameter] = Field({})
    """What is searched: hyperparameters by NAME or METHOD.NAME, ``ce_weight``, ``recipe.lr``."""

    search: SearchSpec = SearchSpec()
    """How configurations are chosen."""

    metric: MetricSpec = MetricSpec()
    """What the search improves."""

    seeds: Seeds = 1
    """A count (seeds 0 to n-1), a list of seeds, or a mapping that may race them."""

    rungs: RungsSpec | None = None
    """Successive halving; without it every trial trains to the last epoch."""

    budget: BudgetSpec
    """How much to spend."""

    resources: ResourcesSpec = ResourcesSpec()
    """What a cohort gets."""

    tracking: TrackingSpec = TrackingSpec()
    """MLflow."""

    storage: StorageSpec = StorageSpec()
    """Where the study lies."""

    undistilled: bool = True
    """Whether the student is also trained without distillation, once a seed, as the control."""

    tasks: tuple[TaskChanges, ...] = Field((), exclude_if=lambda tasks: not tasks)
    """Train the same configurations on several tasks: each entry has a name, and what it changes of
    the task, the objective or the parameters. Budget and seeds are those of each task."""

    @field_validator("seeds")
    @classmethod
    def _seeds_are_unique(cls, seeds: Seeds) -> Seeds:
        unique_seeds(seeds if isinstance(seeds, tuple) else ())
        return seeds

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds."""
        return seed_values(self.seeds)

    @property
    def tolerance(self) -> float | None:
        """By how much worse than the best the winner of a race may be; None without a race."""
        return race_tolerance(self.seeds, self.metric)

    @property
    def rung_epochs(self) -> tuple[int, ...]:
        """Epochs after which the worst trials are dropped: first, first * eta, ... < epochs."""
        epochs = []
        epoch = self.rungs.first if self.rungs else self.budget.epochs
        while self.rungs and epoch < self.budget.epochs:
            epochs.append(epoch)
            epoch *= self.rungs.eta
        return tuple(epochs)

    @property
    def folder(self) -> Path:
        """The study folder."""
        return self.storage.folder / self.name

    @property
    def teacher_folder(self) -> Path:
        """The folder of the study's own teacher, named by a digest of all that trains it."""
        folder = self.folder
        if "/" in self.name and self.storage.remote is None:
            folder = folder.parent  # tasks with the same teacher train it once
        trained = self.task.teacher.model_copy(
            update={
                "epochs": self.task.teacher.epochs or self.budget.epochs,
                "recipe": self.task.teacher.recipe or self.task.recipe,
            }
        )
        data = self.task.data.model_dump_json(exclude={"root", "label_noise"})
        teacher = trained.model_dump_json(exclude={"cache", "inference"})
        identity = f"{teacher} {data} {self.seed_list[0]}"
        return folder / "teacher" / hashlib.sha256(identity.encode()).hexdigest()[:12]

    @cached_property
    def studies(self) -> tuple[Study, ...]:
        """The studies to train: one a task, called STUDY/TASK, or this one where it has no tasks.

        Each has its own record, in its own folder below this study's.
        """
        if not self.tasks:
            return (self,)
        return tuple(
            Study.model_validate_json(json.dumps(data), strict=True) for data in self._tasks
        )

    @property
    def _tasks(self) -> list[dict[str, Any]]:
        """Data of the studies of all tasks."""
        whole = self.model_dump(mode="json", exclude_unset=True)
        return [task_data(whole, changes) for changes in self.tasks]

    @property
    def cache_folder(self) -> Path:
        """The folder of the teacher caches, shared by all studies of one storage folder."""
        return self.task.teacher.cache.folder or self.storage.folder / ".cache" / "teachers"

    @property
    def generation_size(self) -> int:
        """Configurations asked for together, and compared at rungs."""
        return self.search.generation or _GENERATION

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The searched parameters in file order, without those that have one fixed value."""
        found = axes_of(self.parameters, self.objective)
        return tuple(axis for axis in found if axis.parameter.value is None)

    @property
    def baseline(self) -> dict[str, Value] | None:
        """The first configuration, in file order, if the study names one."""
        return baseline_of(self.search, self.axes)

    @property
    def first(self) -> tuple[dict[str, Value], ...]:
        """The configurations that the search begins with, each in file order."""
        return tuple(
            {axis.name: axis.cast(values[axis.name]) for axis in self.axes}
            for values in self.search.first
        )

    @property
    def configurations(self) -> int:
        """Number of configurations: what trials and seeds leave, or the size of the design.

        Where every parameter is fixed there is one.
        """
        if not self.axes:
            return 1
        if self.budget.trials is None:
            return design_size(self.search, self.axes)
        return self.budget.trials // len(self.seed_list)

    @property
    def trials(self) -> int:
        """Number of trials: configurations x seeds."""
        return self.configurations * len(self.seed_list)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns Optuna's distribution of each searched parameter, in file order."""
        return {axis.name: axis.distribution() for axis in self.axes}

    def resolve(self, values: Mapping[str, Value]) -> Resolved:
        """Returns what a configuration trains with.

        Args:
            values: A value for each searched parameter, by its name in the study file.

        Raises:
            UserError: If a value is missing, unknown, or out of its hyperparameter's bounds.
        """
        searched = [axis.name for axis in self.axes]
        if sorted(values) != sorted(searched):
            raise UserError(
                f"a configuration must have values of {', '.join(searched) or 'no parameter'}, "
                f"but got {', '.join(values) or 'none'}"
            )
        by_owner: dict[str, dict[str, Value]] = {}
        for axis in axes_of(self.parameters, self.objective):
            fixed = axis.parameter.value
            value = axis.cast(values[axis.name] if fixed is None else fixed)
            by_owner.setdefault(axis.target.owner, {})[axis.target.hyperparameter.name] = value
        recipe = self.task.recipe.model_dump(exclude_unset=True) | by_owner.get("recipe", {})
        multiple = float(by_owner.get("budget", {}).get("compute", 1.0))
        seconds = self.budget.seconds and self.budget.seconds * multiple
        terms = tuple(m.term(by_owner.get(m.label, {})) for m in self.objective.methods)
        return Resolved(
            ce_weight=float(by_owner.get("", {}).get("ce_weight", self.objective.ce_weight)),
            # What weighs nothing must not cost seconds either, where they are the budget.
            terms=tuple(term for term in terms if term.weight or seconds is None),
            recipe=RecipeSpec.model_validate(recipe),
            ce_start_epoch=self.objective.ce_start_epoch,
            seconds=seconds,
        )

    def without_passwords(self) -> Self:
        """Returns the study as workers and readers may have it: its URLs without passwords."""
        url, uri = self.storage.url, self.tracking.uri
        storage = {"url": url and drop_password(url)}
        tracking = {"uri": uri and drop_password(uri)}
        return self.model_copy(
            update={
                "storage": self.storage.model_copy(update=storage),
                "tracking": self.tracking.model_copy(update=tracking),
            }
        )

    def to_yaml(self, *, place: bool = True) -> str:
        """Returns the study as YAML, defaults included; loading it gives an equal study.

        With tasks it is without defaults, since a task may change what they depend on.
        URLs are without their passwords: this text goes into the study folder, reports and MLflow.

        Args:
            place: Whether to say in which folder the study lies; it may be moved.
        """
        exclude = None if place else {"storage": {"folder"}}
        kept = self.without_passwords()
        if self.tasks:
            return dump_yaml(kept.model_dump(mode="json", exclude_unset=True, exclude=exclude))
        data = kept.model_dump(mode="json", exclude_none=True, exclude=exclude)
        owners = {"": data["objective"], "recipe": data["task"]["recipe"], "budget": {}}
        labels = (method.label for method in self.objective.methods)
        owners |= zip(labels, data["objective"]["methods"], strict=True)
        for axis in axes_of(self.parameters, self.objective):
            # What is a parameter has no default left, and one here would be a second value.
            owners[axis.target.owner].pop(axis.target.hyperparameter.name, None)
        return dump_yaml(data)

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        violations = broken_rules(sections | {"all_parameters": self.parameters})
        violations = violations or self._broken_tasks()
        if violations:
            text = "; ".join(map(str, violations))
            context: dict[str, Any] = {"text": text, "violations": violations}
            raise PydanticCustomError("rules", "{text}", context)
        return self

    def _broken_tasks(self) -> list[Violation]:
        """Returns what is wrong with the study's tasks."""
        found = names_broken(self.tasks)
        for index, data in enumerate(self._tasks if not found else ()):
            study, violations = _validated(data)
            found.extend(in_task(violation, index) for violation in violations)
            if study is not None and study.search.warm_start is not None:
                rule = "must not be given in a study with tasks"
                hint = "list the configurations as search.first"
                return [Violation(("search", "warm_start"), rule, hint)]
            same = (*DESIGNS, *SPACE_FILLING)
            if study is not None and study.axes and study.search.method not in same:
                rule = f"must be one of {', '.join(same)} in a study with tasks"
                hint = f"{study.search.method} would try other configurations on each"
                return [Violation(("search", "method"), rule, hint, f'"{study.search.method}"')]
        return found


def load_study(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """Returns the study of a file with overrides applied.

    The teacher's weights and the data's root may be relative: in the file to the file's own folder
    if they exist there, else to the working directory; in an override to the working directory.
    ``storage.folder`` is relative to the working directory.

    Args:
        path: The study file.
        overrides: Overrides in Hydra's grammar, such as ``alpha=interval(0,14)``.

    Raises:
        UserError: If the file cannot be read.
        StudyFileError: With everything that is wrong with file and overrides.
    """
    document = read_yaml(Path(path))
    overridden = apply_overrides(document.data, overrides, list(Study.model_fields))
    _anchor_paths(overridden, document.path.parent)
    study, violations = _validated(overridden.data)
    found = problems_of(violations, overridden.data, document, overridden.places)
    problems = [*document.problems, *overridden.problems, *found]
    if problems or study is None:
        raise StudyFileError(sorted(problems, key=_line))
    return study


def _anchor_paths(overridden: Overridden, folder: Path) -> None:
    """Makes the paths of files absolute."""
    tasks = overridden.data.get("tasks")
    owners: list[Keys] = [("task",)]
    owners += [("tasks", index) for index in range(len(tasks) if isinstance(tasks, list) else 0)]
    places: list[Keys] = [(*owner, *path) for owner in owners for path in _PATHS]
    for keys in (*places, ("search", "warm_start")):
        holder: Any = overridden.data
        for key in keys[:-1]:
            holder = _inside(holder, key)
        text = holder.get(keys[-1]) if isinstance(holder, dict) else None
        if not isinstance(text, str) or text in ("", "timm") or text.startswith("package:"):
            continue
        path = Path(text).expanduser()
        beside = folder / path
        from_file = keys not in overridden.places and beside.exists()
        holder[keys[-1]] = str((beside if from_file else path).absolute())


def _inside(holder: Any, key: str | int) -> Any:
    if isinstance(holder, dict):
        return holder.get(key)
    return holder[key] if isinstance(holder, list) and isinstance(key, int) else None


def _line(problem: Problem) -> tuple[int, str]:
    """Returns the order of a problem: by line, overrides last."""
    line = problem.where.rpartition(":")[2]
    return (int(line), "") if line.isdigit() else (sys.maxsize, problem.where)


def _validated(data: Mapping[str, Any]) -> tuple[Study | None, list[Violation]]:
    """Returns the study, or all that is wrong with it, as far as sections can be read alone."""
    try:
        # As JSON, so that strictness refuses "0.1" for a number but takes a list for a tuple.
        return Study.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        broken = {detail["loc"][:2] for detail in error.errors(include_url=False) if detail["loc"]}
        violations = violations_of(error, data, Study.model_json_schema)
    if not broken:
        return None, violations
    sections: dict[str, Any] = {}
    for name, field in Study.model_fields.items():
        if not any(place[0] == name for place in broken):
            known = name in data
            sections[name] = _section(name, data[name]) if known else field.get_default()
    if "parameters" in sections:
        sections["all_parameters"] = sections["parameters"]
    elif isinstance(given := data["parameters"], dict):
        sound = {name: given[name] for name in given if ("parameters", name) not in broken}
        sections["parameters"] = _section("parameters", sound)
    return None, [*violations, *broken_rules(sections)]


def _section(name: str, data: Any) -> Any:
    annotation: Any = Annotated[Study.model_fields[name].annotation, Study.model_fields[name]]
    return TypeAdapter(annotation).validate_json(json.dumps(data), strict=True)
