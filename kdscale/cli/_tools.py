"""Commands that look at things: a study, a published table, the methods, this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from kdscale.cli._app import (
    Overrides,
    StudyPath,
    TaskName,
    app,
    console,
    load_task,
    print_plain,
)
from kdscale.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from kdscale.analysis import Goal

_LEAST_NOISE, _MOST_NOISE = 1e-9, 1e9
"""No score is so exact or so rough; squares of numbers far beyond are no numbers."""


@app.command()
def ui(
    study: StudyPath,
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web page.")] = 5000,
    task: TaskName = None,
) -> None:
    """Open MLflow's user interface on a study, on this machine's loopback address."""
    from kdscale.tracking import own_database

    if (study / "comparison.html").exists():  # the folder of `kdscale compare`
        _show(study, own_database(study), study.name, f"compare {study.name}", port)
    loaded = load_task(study, overrides, task)
    uri = loaded.tracking.uri
    if uri is None and not loaded.folder.exists():
        raise UserError(
            f"{loaded.folder}: there must be a study to look at (kdscale sweep makes it)"
        )
    _show(loaded.folder, uri, loaded.name, loaded.tracking.experiment or loaded.name, port)


def _show(folder: Path, uri: str | None, name: str, experiment: str, port: int) -> NoReturn:
    from kdscale.tracking import ui_command, ui_environment, ui_page

    command = ui_command(folder, uri, port=port)
    page = ui_page(folder, uri, experiment, port=port)
    print_plain(f"{name} in MLflow (Ctrl-C ends it):\n{page}")
    raise typer.Exit(subprocess.call(command, env={**os.environ, **ui_environment(folder, uri)}))


@app.command()
def audit(
    table: Annotated[
        str,
        typer.Argument(
            help="A CSV or Markdown file: one column a hyperparameter, a column score, optional "
            "n, std and table; or ldrld-sensitivity or ldrld-depth, which come with kdscale."
        ),
    ],
    noise: Annotated[
        float | None, typer.Option(help="Standard deviation of a single run, if you know it.")
    ] = None,
    minimize: Annotated[
        bool, typer.Option("--minimize", help="A smaller score is the better one.")
    ] = False,
) -> None:
    """Say what a published table supports: is its best cell more than noise?"""
    from kdscale.analysis.statistics import audit as audit_tables
    from kdscale.analysis.statistics import read_tables
    from kdscale.terminal import audit_view

    if noise is not None and not _LEAST_NOISE <= noise <= _MOST_NOISE:
        bounds = f"between {_LEAST_NOISE:g} and {_MOST_NOISE:g}"
        raise UserError(f"--noise: must be {bounds}, but got {noise:g}")
    goal: Goal = "minimize" if minimize else "maximize"
    console.print(audit_view(audit_tables(read_tables(table), goal=goal, noise=noise)))


@app.command()
def methods(
    names: Annotated[
        list[str] | None, typer.Argument(help="Methods to show with their hyperparameters.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List also those whose specification is not public.")
    ] = False,
) -> None:
    """List the methods; or show hyperparameters, defaults and paper of those named."""
    from kdscale.losses import METHODS, NOT_PUBLIC
    from kdscale.terminal import method_view, methods_table, not_public_table

    for name in names or ():
        if name not in METHODS:
            hint = did_you_mean(name, METHODS) or "`kdscale methods` lists them"
            raise UserError(f'there is no method "{name}" ({hint})')
    if names:
        for name in names:
            console.print(method_view(METHODS[name]), end="\n\n" if name != names[-1] else "\n")
        return
    console.print(methods_table(METHODS.values()))
    if everything:
        console.print()
        console.print(not_public_table(NOT_PUBLIC))


@app.command("convert-weights", context_settings={"ignore_unknown_options": True})
def convert_weightscommand_line(
    text: Annotated[
        list[str], typer.Argument(help="The weights as that code base spells them, its own flags.")
    ],
    source: Annotated[
        str,
        typer.Option("--from", help="The code base: repdistiller, mdistiller, rsd-paper or deit."),
    ],
    classes: Annotated[
        int | None, typer.Option(help="Classes, where the convention depends on them.")
    ] = None,
    dims: Annotated[
        int | None, typer.Option(help="The teacher's embedding size, for rsd-paper.")
    ] = None,
) -> None:
    """Say loss weights of another code base as a kdscale objective with equal gradient."""
    from kdscale.losses import convert_weights

    converted = convert_weights(source, " ".join(text), classes=classes, dims=dims)
    console.print(converted.to_yaml(), end="", markup=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """Check versions, devices, Ray and disk; say what is wrong and how to mend it."""
    from kdscale.terminal import doctor_view, examine

    findings = examine(Path.cwd())
    console.print(doctor_view(findings))
    if any(finding.wrong for finding in findings):
        raise typer.Exit(1)
