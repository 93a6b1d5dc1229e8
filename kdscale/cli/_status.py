"""The command that looks at a study while it is swept, from this machine or another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from kdscale.cli._app import Overrides, StudyPath, app, command_line, console, load_study
from kdscale.errors import UserError

if TYPE_CHECKING:
    from kdscale.search import Study
    from kdscale.terminal import Status

_REFRESH_SECONDS = 5.0
_LINES_SECONDS = 30.0


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
    from kdscale.terminal import status_view

    if watch and as_json:
        raise UserError("--watch: must not come with --json (call it again for the next one)")
    loaded = load_study(study, overrides)
    command = command_line("sweep", study, overrides)
    seen = _look(loaded)
    if as_json:
        print(seen.to_json())
        return
    if not watch:
        console.print(status_view(seen, command))
        return
    try:
        _watch(loaded, seen, command)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _watch(study: Study, seen: Status, command: str) -> None:
    """Shows the status until no sweep runs: in place in a terminal, else from time to time."""
    from kdscale.terminal import status_view

    if not console.is_terminal:
        console.print(status_view(seen, command))
        while seen.runs:
            time.sleep(_LINES_SECONDS)
            seen = _look(study)
            console.print()
            console.print(status_view(seen, command))
        return
    with Live(status_view(seen, command), console=console, auto_refresh=False) as live:
        while seen.runs:
            time.sleep(_REFRESH_SECONDS)
            seen = _look(study)
            live.update(status_view(seen, command), refresh=True)


def _look(study: Study) -> Status:
    from kdscale.search import ledger_snapshot
    from kdscale.terminal import status_of

    with ledger_snapshot(study) as ledger:
        return status_of(ledger)
