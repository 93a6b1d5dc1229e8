"""Whether a disturbed study came out as one left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

from chaos_lib.watch import same_content
from kdscale.search import Ledger, Study, load_study, open_ledger
from kdscale.search._storage import open_storage, study_names
from kdscale.training import student_path
from kdscale.training._checkpoint import load_checkpoint


def differences(left_alone: Path, disturbed: Path) -> list[str]:
    """Returns how the studies of two files differ, a line each.

    Args:
        left_alone: The study file of the one.
        disturbed: The study file of the other.
    """
    return list(_differences(load_study(left_alone), load_study(disturbed)))


def _differences(left_alone: Study, disturbed: Study) -> Iterator[str]:
    for study in (left_alone, disturbed):
        for recorded, times in _times_recorded(study).items():
            if times > 1:
                yield f"{study.folder}: {recorded} is there {times} times"
    wanted = _numbers(open_ledger(left_alone, create=False))
    found = _numbers(open_ledger(disturbed, create=False))
    for trial in sorted(wanted.keys() - found.keys()):
        yield f"{trial} is lost"
    for trial in sorted(found.keys() - wanted.keys()):
        yield f"{trial} is there and should not be"
    for trial in sorted(wanted.keys() & found.keys()):
        for what, value in wanted[trial].items():
            if found[trial][what] != value:
                yield f"{trial}: {what} is {found[trial][what]!r} and should be {value!r}"
        files = [student_path(one.folder / "trials" / trial) for one in (left_alone, disturbed)]
        there = [path.exists() for path in files]
        if there[0] != there[1]:
            yield f"{trial}: one of the studies has no student"
        elif all(there) and not same_content(*map(load_checkpoint, files)):
            yield f"{trial}: the student's weights differ"


def _numbers(ledger: Ledger) -> dict[str, dict[str, Any]]:
    return {
        trial.name: {
            "parameters": dict(trial.parameters),
            "state": trial.state,
            "value": trial.value,
            "history": [dict(row) for row in trial.history],
            "reason": trial.reason,
            "student": trial.student,
        }
        for trial in (*ledger.trials, *ledger.controls)
    }


def _times_recorded(study: Study) -> Counter[tuple[Any, ...]]:
    """Returns how often each trial is in Optuna's storage, whatever the ledger makes of it."""
    storage = open_storage(study)
    names = set(study_names(study)) & set(optuna.get_all_study_names(storage))
    return Counter(
        (name, trial.user_attrs.get("configuration"), trial.user_attrs["seed"])
        for name in names
        for trial in storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
    )
