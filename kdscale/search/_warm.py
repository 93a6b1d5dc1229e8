"""Beginning a search with the best configurations of another study."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from kdscale.errors import UserError
from kdscale.records import Value
from kdscale.search._folder import load_folder
from kdscale.search._reads import all_trials
from kdscale.search._storage import find_study, has_begun, open_storage
from kdscale.search._study import Study

_MOST = 3

Configuration = dict[str, Value]


def warmed(study: Study, storage: BaseStorage, *, begin: bool) -> Study:
    """Returns the study with the configurations that ``search.warm_start`` puts first.

    A study that has trained anything keeps those that it began with, whatever has become of the
    other study.

    Args:
        study: The study.
        storage: Where its record lies.
        begin: Whether it may begin now; else the other study is not read.

    Raises:
        UserError: If the other study cannot be read, or has nothing for this search space.
    """
    other, search = study.search.warm_start, study.search
    if other is None or search.first:
        return study
    first = _recorded(study, storage, trained=begin)
    if first is None:
        first = _best(study, other) if begin else []
    return study.model_copy(update={"search": search.model_copy(update={"first": tuple(first)})})


def _recorded(study: Study, storage: BaseStorage, *, trained: bool) -> list[Configuration] | None:
    """Returns what a study began with; None where there is none, or none that has ``trained``."""
    number = find_study(storage, study.name)
    text = None if number is None else storage.get_study_user_attrs(number).get("study")
    if number is None or text is None:
        return None
    trials = all_trials(storage, number) if trained else []
    if trained and not any(t.intermediate_values or t.state.is_finished() for t in trials):
        return None
    found: list[Configuration] = json.loads(text)["search"].get("first", [])
    return found


def _best(study: Study, folder: Path) -> list[Configuration]:
    """Returns the other study's best configurations that lie in the search space, best first."""
    where = "search.warm_start"
    try:
        other = load_folder(folder, [])
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if other.tasks:
        names = ", ".join(changes.name for changes in other.tasks)
        raise UserError(
            f"{where}: must be one study, but {folder} has the tasks {names} (name one)"
        )
    storage = open_storage(other) if has_begun(other) else None
    number = None if storage is None else find_study(storage, other.name)
    if storage is None or number is None:
        raise UserError(f"{where}: must be the folder of a study, but {folder} holds no record")
    found: list[Configuration] = []
    for parameters in _ranked(all_trials(storage, number), other.metric.goal):
        if all(a.name in parameters and a.contains(parameters[a.name]) for a in study.axes):
            fits = {axis.name: axis.cast(parameters[axis.name]) for axis in study.axes}
            found += [fits] if fits not in found else []
    if not found:
        searched = ", ".join(axis.name for axis in study.axes)
        raise UserError(
            f"{where}: must have a configuration that trained to the last epoch and lies in the "
            f"space of {searched}, but {folder} has none"
        )
    return found[:_MOST]


def _ranked(trials: list[FrozenTrial], goal: str) -> list[Configuration]:
    """Returns the configurations with complete trials: most seeds first, then the best mean."""
    values: dict[int, list[float]] = {}
    parameters: dict[int, Configuration] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.values:
            number = trial.user_attrs["configuration"]
            values.setdefault(number, []).append(trial.values[0])
            parameters[number] = trial.params
    sign = -1.0 if goal == "maximize" else 1.0
    order = sorted(values, key=lambda one: (-len(values[one]), sign * fmean(values[one]), one))
    return [parameters[number] for number in order]
