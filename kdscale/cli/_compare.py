"""The command that puts several studies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from kdscale.cli._app import app, console, errors, load_study, print_plain
from kdscale.errors import UserError


@app.command()
def compare(
    studies: Annotated[
        list[Path], typer.Argument(help="Two or more studies: files, or folders.", metavar="STUDY…")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help=r"Folder of the page \[default: comparisons/NAMES]."),
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Also show the studies together in MLflow.")] = True,
) -> None:
    """Compare studies: one page with their best, plateaus, costs, and what a budget buys."""
    from kdscale.analysis import comparison_headline
    from kdscale.workflow import compare as compare_studies
    from kdscale.workflow import show_together

    if output is not None and output.exists() and not output.is_dir():
        raise UserError(f"--output: must be a folder, but {output} is a file")
    loaded = [load_study(path, None) for path in studies]
    comparison, paths = compare_studies(loaded, output)
    for statement in comparison_headline(comparison):
        console.print(escape(statement.text))
    print_plain(f"comparison: {paths.html}")
    if not mlflow:
        return
    with console.status("") as status:
        try:
            place = show_together(
                loaded,
                comparison,
                paths.html.parent,
                lambda left: status.update(f"MLflow: {left:,} trials to go"),
            )
        except UserError as error:
            errors.print(f"[yellow]{escape(str(error))}[/]")
            return
    print_plain(f"in MLflow: {place}")
