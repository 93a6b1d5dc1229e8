"""The command that looks at a study while it is swept, from this machine or another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from kdscale.cli._app import Overrides, StudyPath, app, command_line, console, load_study
from kdscale.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kdscale.search import Study
    from kdscale.terminal import Status, TasksStatus

_REFRESH_SECONDS = 5.0
_LINES_SECONDS = 30.0
_BETWEEN_SECONDS = 120.0
"""So long nobody may be at a study of several tasks before its watch ends."""


@app.command()
def status(
    study: StudyPath,
    overrides: Overrides = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh until the sweep ends; Ctrl-C only looks away.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show how a study stands: trials, cohorts, best so far, time left, what waits and why."""
    if watch and as_json:
        raise UserError("--watch: must not come with --json (call it again for the next one)")
    loaded = load_study(study, overrides)
    command = command_line("sweep", study, overrides)
    seen = _look(loaded)
    if as_json:
        print(seen.to_json())
        return
    if not watch:
        console.print(_view(seen, command))
        return
    try:
        _watch(loaded, seen, command)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _watch(study: Study, seen: Status | TasksStatus, command: str) -> None:
    """Shows the status until no sweep runs: in place in a terminal, else from time to time."""
    if not console.is_terminal:
        console.print(_view(seen, command))
        for later in _looks(study, seen, _LINES_SECONDS):
            console.print()
            console.print(_view(later, command))
        return
    with Live(_view(seen, command), console=console, auto_refresh=False) as live:
        for later in _looks(study, seen, _REFRESH_SECONDS):
            live.update(_view(later, command), refresh=True)


def _looks(
    study: Study, seen: Status | TasksStatus, every_seconds: float
) -> Iterator[Status | TasksStatus]:
    """Yields how the study stands from time to time, until no sweep runs."""
    patience_seconds = _BETWEEN_SECONDS if study.tasks else 0.0
    quiet_seconds = 0.0
    while seen.runs or (quiet_seconds < patience_seconds and not seen.complete):
        time.sleep(every_seconds)
        seen = _look(study)
        quiet_seconds = 0.0 if seen.runs else quiet_seconds + every_seconds
        yield seen


def _look(study: Study) -> Status | TasksStatus:
    from kdscale.search import has_begun
    from kdscale.terminal import TasksStatus

    if not study.tasks:
        return _status(study)
    if not any(has_begun(task) for task in study.studies):
        return _status(study.studies[0])  # which says that there is none
    names = (changes.name for changes in study.tasks)
    tasks = {
        name: _status(task) if has_begun(task) else None
        for name, task in zip(names, study.studies, strict=True)
    }
    return TasksStatus(study.name, str(study.folder), tasks)


def _status(study: Study) -> Status:
    from kdscale.search import ledger_snapshot
    from kdscale.terminal import status_of

    with ledger_snapshot(study) as ledger:
        return status_of(ledger)


def _view(seen: Status | TasksStatus, command: str) -> RenderableType:
    from kdscale.terminal import TasksStatus, status_view, tasks_view

    if isinstance(seen, TasksStatus):
        return tasks_view(seen, command)
    return status_view(seen, command)
