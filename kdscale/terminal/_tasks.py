"""How a study of several tasks stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from kdscale.terminal._status import Status, status_view


@dataclass(frozen=True)
class TasksStatus:
    """How a study of several tasks stands.

    Attributes:
        study: Its name.
        folder: Its folder.
        tasks: Task -> how its own study stands; None where it has not begun.
    """

    study: str
    folder: str
    tasks: Mapping[str, Status | None]

    @property
    def runs(self) -> bool:
        """Whether a sweep is at one of the tasks."""
        return any(status is not None and status.runs for status in self.tasks.values())

    @property
    def complete(self) -> bool:
        """Whether every planned trial of every task has ended."""
        return all(status is not None and status.complete for status in self.tasks.values())

    def to_json(self) -> str:
        """Returns it for scripts."""
        tasks = {
            name: None if status is None else asdict(status) | {"complete": status.complete}
            for name, status in self.tasks.items()
        }
        about = {"study": self.study, "folder": self.folder, "runs": self.runs}
        return json.dumps(about | {"complete": self.complete, "tasks": tasks}, indent=2)


def tasks_view(status: TasksStatus, command: str) -> RenderableType:
    """Returns a line a task, and of those that a sweep is at all that is known.

    Args:
        status: The status.
        command: What continues the study.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for heading in ("task", "trials", "best", ""):
        table.add_column(heading, overflow="fold")
    for name, one in status.tasks.items():
        table.add_row(escape(name), *map(escape, _row(one)))
    parts: list[RenderableType] = [f"{escape(status.study)}, in {escape(status.folder)}", table]
    for one in status.tasks.values():
        if one is not None and one.runs:
            parts += ["", Padding(status_view(one, command), (0, 0, 0, 2))]
    if not status.runs and not status.complete:
        parts.append(f"to continue:\n  {escape(command)}")
    return Group(*parts)


def _row(status: Status | None) -> tuple[str, str, str]:
    if status is None:
        return "–", "–", "not begun"
    ended = sum(status.states[state] for state in ("done", "pruned", "failed"))
    best = "–" if status.best is None else f"{status.best.configuration}: {status.best.text}"
    word = "complete" if status.complete else "runs" if status.runs else "stopped"
    return f"{ended} of {status.planned} ended", best, word
