"""Several tasks in one study file: what each changes, and the study that this makes."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from kdscale.search._problems import Violation
from kdscale.search._yaml import Keys
from kdscale.training import Spec, rule_error

_NAME_LENGTH = 100
"""File systems take 255 bytes, and names of files are made of a study's name."""

NAME = rf"[a-z0-9][a-z0-9._-]{{0,{_NAME_LENGTH - 1}}}"
"""What studies and tasks may be called."""

_SECTIONS = ("data", "teacher", "student", "recipe")
_IDENTITIES = ("name", "model")
_TAKEN = (
    "leases",
    "mlartifacts",
    "ray",
    "report-tables",
    "single",
    "teacher",
    "teachers",
    "trials",
    "undistilled",
)
"""What a study folder and its storage have of their own beside the tasks."""


def check_name(name: Any) -> Any:
    """Refuses a name that is too long or misspelt, of which a pattern would say less."""
    if not isinstance(name, str):
        return name
    parts = name.split("/")
    if any(len(part) > _NAME_LENGTH for part in parts):
        raise rule_error(f"must have at most {_NAME_LENGTH} characters")
    if not all(re.fullmatch(NAME, part) for part in parts):
        near = "/".join(re.sub(r"[^a-z0-9._-]+", "-", p.lower()).strip("-._") for p in parts)
        hint = f'did you mean "{near}"?' if all(near.split("/")) else ""
        rule = "must be of a to z, 0 to 9, '.', '_' and '-', and begin with a letter or digit"
        raise rule_error(rule, hint=hint)
    return name


class TaskChanges(Spec):
    """One of a study's tasks: what it changes of ``task``, ``objective`` and ``parameters``.

    Mappings are merged key by key; anything else takes the place of what was there, and null takes
    it away. Another data set, another network and each parameter start afresh.
    """

    name: Annotated[str, BeforeValidator(check_name)] = Field(pattern=rf"^{NAME}$")
    """Names the task's folder below the study folder; its MLflow experiment is STUDY/TASK."""

    data: dict[str, Any] = Field({})
    """Changes of ``task.data``."""

    teacher: dict[str, Any] = Field({})
    """Changes of ``task.teacher``."""

    student: dict[str, Any] = Field({})
    """Changes of ``task.student``."""

    recipe: dict[str, Any] = Field({})
    """Changes of ``task.recipe``."""

    objective: dict[str, Any] = Field({})
    """Changes of the objective, for ablations; ``methods`` replaces the list."""

    parameters: dict[str, Any] = Field({})
    """Changes of the search space."""


def task_data(whole: Mapping[str, Any], changes: TaskChanges) -> dict[str, Any]:
    """Returns the data of the study of one task.

    Args:
        whole: Data of the study with all tasks, without defaults.
        changes: The task.
    """
    data = copy.deepcopy(dict(whole))
    del data["tasks"]
    data["name"] = f"{data['name']}/{changes.name}"
    task = data["task"]
    for section in _SECTIONS:
        merged = _section(task.get(section, {}), getattr(changes, section))
        if merged or section in task:
            task[section] = merged
    data["objective"] = _merged(data["objective"], changes.objective)
    parameters = dict(data.get("parameters", {})) | changes.parameters
    data["parameters"] = {name: one for name, one in parameters.items() if one is not None}
    tracking = data.get("tracking", {})
    if tracking.get("experiment"):
        data["tracking"] = tracking | {"experiment": f"{tracking['experiment']}/{changes.name}"}
    return data


def names_broken(tasks: Sequence[TaskChanges]) -> list[Violation]:
    """Returns what is wrong with the tasks' names."""
    found = []
    seen: set[str] = set()
    for index, changes in enumerate(tasks):
        keys: Keys = ("tasks", index, "name")
        if changes.name in seen:
            found.append(Violation(keys, "must be a name of its own", "another task has it"))
        if changes.name in _TAKEN or changes.name.startswith(("report.", "study.", "mlflow.")):
            rule = "must not be the name of something else in a study folder"
            found.append(Violation(keys, rule, f"for example {changes.name}-1"))
        seen.add(changes.name)
    return found


def in_task(violation: Violation, index: int) -> Violation:
    """Returns what is wrong with a task's study, at its place in the file of all tasks."""
    keys = violation.keys[1:] if violation.keys[:1] == ("task",) else violation.keys
    return Violation(("tasks", index, *keys), violation.rule, violation.hint, violation.value)


def _section(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a section of the task; of another data set or network nothing is kept."""
    another = any(key in new and new[key] != old.get(key) for key in _IDENTITIES)
    return _merged({} if another else old, new)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = _merged(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged
