"""Overrides applied to a study file's data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kdscale.errors import Problem, did_you_mean
from kdscale.search._overrides import Override, OverrideError, Sweep, parse_override
from kdscale.search._parameters import Parameter
from kdscale.search._yaml import DEEP_RULE, DEEPEST, Keys, flow, nesting


@dataclass(frozen=True)
class Overridden:
    """A study file's data with overrides applied.

    Attributes:
        data: The data.
        places: Each place that an override set, and the override as it was typed.
        problems: Overrides that could not be applied.
    """

    data: dict[str, Any]
    places: Mapping[Keys, str]
    problems: tuple[Problem, ...]


def apply_overrides(
    data: Mapping[str, Any], overrides: Sequence[str], fields: Sequence[str]
) -> Overridden:
    """Returns the data with overrides applied one after the other.

    A key whose first part is no field of the study names a parameter: ``alpha=interval(0,14)`` is
    ``parameters.alpha``. Searching or fixing a parameter takes away a value that the objective or
    the recipe has for it, because the command line wins over the file.

    Args:
        data: The study file's data; it stays as it is.
        overrides: Overrides as they were typed.
        fields: The study's top-level fields.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(data))
    places: dict[Keys, str] = {}
    problems: list[Problem] = []
    for text in overrides:
        try:
            override = parse_override(text)
            keys = _keys(override.key, changed, fields)
            _check_depth(keys, override.value)
            set_places = _remove if override.action == "remove" else _set
            places |= dict.fromkeys(set_places(changed, keys, override), text)
        except OverrideError as error:
            problems.append(Problem(text, "", "", error.rule, error.hint))
        except RecursionError:
            problems.append(Problem(f"{text[:57]}...", "", "", DEEP_RULE))
    return Overridden(changed, places, tuple(problems))


def _check_depth(keys: Keys, value: Any) -> None:
    plain = value.parameter if isinstance(value, Sweep) else value
    if len(keys) + nesting(plain) > DEEPEST:
        raise OverrideError(DEEP_RULE)


def _keys(key: str, data: Mapping[str, Any], fields: Sequence[str]) -> Keys:
    parts = key.split(".")
    if parts[0] in fields and parts[0] != "parameters":
        return tuple(int(part) if part.isdigit() else part for part in parts)
    names = parts[1:] if parts[0] == "parameters" else parts
    if not names:
        raise OverrideError("must name a parameter", "as in parameters.alpha.max=12")
    # A parameter's own name may have a dot (kd.temperature), so what the file has comes first.
    known = data.get("parameters")
    for length in range(len(names), 0, -1):
        if isinstance(known, dict) and ".".join(names[:length]) in known:
            return ("parameters", ".".join(names[:length]), *names[length:])
    if len(names) > 1 and names[-1] in Parameter.model_fields:
        return ("parameters", ".".join(names[:-1]), names[-1])
    return ("parameters", ".".join(names))


def _remove(data: dict[str, Any], keys: Keys, override: Override) -> list[Keys]:
    """Removes an entry and returns its place."""
    holder, key = _holder(data, keys, create=False), keys[-1]
    if not _has(holder, key):
        hint = did_you_mean(str(key), map(str, holder)) if isinstance(holder, dict) else ""
        raise OverrideError("must remove something that the file has", hint)
    if not override.bare and holder[key] != override.value:
        raise OverrideError(f"must remove the value that is there, which is {flow(holder[key])}")
    del holder[key]
    return [keys]


def _set(data: dict[str, Any], keys: Keys, override: Override) -> list[Keys]:
    """Adds or changes an entry and returns the places that are new."""
    value, key = override.value, keys[-1]
    is_parameter = keys[0] == "parameters" and len(keys) == 2
    if is_parameter:
        value = _parameter(str(key), value)
    elif isinstance(value, Sweep):
        hint = f"write recipe.{key}=..." if keys[:2] == ("task", "recipe") else ""
        hint = "write parameters.budget.compute=..." if keys == ("budget", "compute") else hint
        raise OverrideError("must be a plain value, because only parameters are searched", hint)
    holder = _holder(data, keys, create=True)
    there = _has(holder, key)
    if override.action == "add" and there:
        hint = f"write +{override.text}"
        raise OverrideError("must add something new, but the file has it", hint)
    if isinstance(holder, list) and not there:
        raise OverrideError(f"must be an entry of the list: 0 to {len(holder) - 1}")
    if is_parameter:
        _release(data, str(key))
    if isinstance(override.value, dict) and there and isinstance(holder[key], dict):
        holder[key] = _merged(holder[key], value)
        return [(*keys, name) for name in value]
    holder[key] = value
    return [keys]


def _has(holder: dict[str, Any] | list[Any], key: str | int) -> bool:
    return key in (range(len(holder)) if isinstance(holder, list) else holder)


def _parameter(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Sweep):
        return dict(value.parameter)
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        choices = ",".join(map(str, value))
        raise OverrideError("must be one value or a sweep", f"write {name}=choice({choices})")
    if value is None:
        raise OverrideError("must be a value or a sweep", f"~{name} removes the parameter")
    return {"value": value}


def _holder(data: dict[str, Any], keys: Keys, *, create: bool) -> Any:
    """Returns the mapping or list that holds the last key, made where it is missing."""
    holder: Any = data
    for depth, (key, following) in enumerate(pairwise(keys), start=1):
        if create and isinstance(holder, dict) and holder.get(str(key)) is None:
            holder[str(key)] = {}
        if not _has(holder, key):
            hint = did_you_mean(str(key), map(str, holder)) if isinstance(holder, dict) else ""
            raise OverrideError(f"must name something that the file has; {key} is not there", hint)
        holder = holder[key]
        if not isinstance(holder, list if isinstance(following, int) else dict):
            inside = ".".join(map(str, keys[:depth]))
            raise OverrideError(f"must name something in {inside}, which is {flow(holder)}")
    return holder


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _release(data: dict[str, Any], name: str) -> None:
    """Takes away the fixed value of what is now a parameter."""
    objective, task = data.get("objective"), data.get("task")
    if not isinstance(objective, dict):
        return
    if name == "ce_weight":
        objective.pop(name, None)
    owner, _, short = name.rpartition(".")
    if owner == "recipe" and isinstance(task, dict) and isinstance(task.get("recipe"), dict):
        task["recipe"].pop(short, None)
    methods = [m for m in objective.get("methods") or () if isinstance(m, dict)]
    fixing = [
        method
        for method in methods
        if short in method and owner in ("", method.get("as") or method.get("method"))
    ]
    if len(fixing) == 1 and short not in ("method", "as"):
        del fixing[0][short]
