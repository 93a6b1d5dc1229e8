"""The command that makes MLflow complete."""

from __future__ import annotations

from typing import Annotated

import typer

from kdscale.cli._app import Overrides, StudyPath, app, console, load_study, print_plain


@app.command()
def track(
    study: StudyPath,
    overrides: Overrides = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Throw away what MLflow has of the study, and send it all again."
        ),
    ] = False,
    register: Annotated[
        str | None,
        typer.Option(
            help="Also register the best student in MLflow's model registry, under this name."
        ),
    ] = None,
) -> None:
    """Send MLflow what it lacks of a study, such as after a sweep with its server away."""
    from kdscale.search import open_ledger, sweep_lock
    from kdscale.tasks import begun, told_of
    from kdscale.workflow import track as track_study

    whole = load_study(study, overrides)
    for loaded in begun(whole):
        model = register and loaded.name.replace(whole.name, register, 1).replace("/", "-")
        with told_of(loaded, whole), sweep_lock(loaded.folder), console.status("") as status:
            record, version = track_study(
                loaded,
                open_ledger(loaded, create=False),
                rebuild=rebuild,
                register=model,
                on_unsent=lambda left: status.update(f"MLflow: {left:,} trials and files to go"),
            )
        trials = len(record.trials) + len(record.controls)
        print_plain(f"MLflow has all of {record.name}: {trials} trials")
        if version is not None:
            print_plain(f"the best student is version {version} of {model}")
