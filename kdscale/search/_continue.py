"""Whether a study file may continue a study: what may change between two sweeps, and what not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdscale.errors import UserError

_MAY_CHANGE = (
    "budget.gpu_hours",
    "resources.workers",
    "resources.cpus_per_worker",
    "resources.gpus_per_worker",
    "resources.placement",
    "resources.cohort",
    "resources.max_failures",
    "search.warm_start",
    # Paths differ between machines. The teacher itself is compared by content hash.
    "task.data.root",
    "task.teacher.weights",
)


def check_same_study(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    """Returns if a study may go on under a changed study file.

    Args:
        old: The study as it was started.
        new: The study as it is asked for now.
        folder: The study folder, for the message.

    Raises:
        UserError: If what defines the trials has changed; names every change.
    """
    changes = [
        f"{path} was {_show(before)}, now {_show(after)}"
        for path, before, after in _differences(old, new)
        if not any(path == free or path.startswith(f"{free}.") for free in _MAY_CHANGE)
        and not (path == "budget.trials" and _raised(before, after))
    ]
    if changes:
        listed = "\n  ".join(changes)
        raise UserError(
            f"{folder}: a study goes on under the file that started it, with budget.trials raised "
            f"at most, but:\n  {listed}\n(use another name, or --fresh to start over)"
        )


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after


def _raised(before: Any, after: Any) -> bool:
    return isinstance(before, int) and isinstance(after, int) and after >= before


def _show(value: Any) -> str:
    return "absent" if value is None else str(value)
