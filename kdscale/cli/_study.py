"""Commands that make a study: its plan, its teacher, its trials, its report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kdscale.cli._app import (
    Overrides,
    StudyPath,
    app,
    command_line,
    console,
    errors,
    load_study,
    print_epochs,
    print_plain,
    resumable,
    show_report,
)
from kdscale.errors import UserError

if TYPE_CHECKING:
    from kdscale.search import Study


@app.command()
def check(
    study: StudyPath,
    overrides: Overrides = None,
    power: Annotated[
        float | None,
        typer.Option(help="Also say how many seeds it takes to see a difference of this size."),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(help="With --power: standard deviation over seeds, or a study that shows it."),
    ] = None,
) -> None:
    """Show the plan: configurations, seeds, cohorts, epochs and expected cost. Trains nothing."""
    from kdscale.search import check as check_study
    from kdscale.terminal import plan_view, power_view
    from kdscale.workflow import power_of

    loaded = load_study(study, overrides)
    plan = power_of(loaded, power, noise)
    console.print(plan_view(loaded, check_study(loaded)))
    if plan is not None:
        console.print(power_view(*plan))


@app.command()
def sweep(
    study: StudyPath,
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the study's record and start over.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --fresh: delete without asking.")
    ] = False,
) -> None:
    """Search: train what the study still misses, then write its report. Run again to continue."""
    from kdscale.launch import check_folder_stays
    from kdscale.search import sweep as run_sweep
    from kdscale.terminal import SweepView
    from kdscale.workflow import TrackedView, finish

    loaded = load_study(study, overrides)
    check_folder_stays(loaded)
    if fresh:
        _start_over(loaded, yes=yes)
    command = command_line("sweep", study, overrides)
    view = TrackedView(loaded, SweepView(console))
    with resumable(command), view:
        outcome = run_sweep(loaded, view)
    record = outcome.ledger.record()
    if not outcome.trained:
        console.print(
            f"nothing to train: all {len(record.trials)} trials of {record.name} have ended"
        )
    paths, record = finish(loaded, outcome.ledger)
    view.attach(record, paths)
    if problem := view.close():
        errors.print(f"[yellow]{escape(problem)}[/]")
    if not outcome.complete:
        print_plain(f"not complete ({outcome.stopped}). To continue:\n  {command}")
    if outcome.losses:
        print_plain(outcome.losses)
    show_report(record, paths)
    if record.trials and all(trial.state == "failed" for trial in record.trials):
        raise typer.Exit(1)


@app.command()
def train(
    study: StudyPath,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trial.")] = 0,
) -> None:
    """Train one trial in the foreground, without Ray: kdscale train STUDY alpha=9 depth=7."""
    from kdscale.analysis import parameters_text
    from kdscale.search import single_trial, train_single

    loaded = load_study(study, overrides)
    single = single_trial(loaded, seed)
    if single.defaults:
        values = {name: single.values[name] for name in single.defaults}
        console.print(f"not given, so at their defaults: {parameters_text(values)}")
    with resumable(command_line("train", study, overrides, "--seed", str(seed))):
        for progress in train_single(loaded, single):
            print_epochs(progress, loaded.budget.epochs)
    if progress.status == "failed":
        raise UserError(f"the trial failed: {progress.reason}")
    print_plain(f"student: {single.student}")


@app.command()
def teacher(
    study: StudyPath,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="Also write the weights here.")] = None,
    fill_cache: Annotated[
        bool,
        typer.Option(
            "--fill-cache",
            help="Then fill the teacher cache with what this study's seeds and epochs will ask "
            "for, in that order, on every free worker of the cluster of RAY_ADDRESS, or of this "
            "machine. Run again to continue; a node that does not share the folder fills its own.",
        ),
    ] = False,
    all_views: Annotated[
        bool,
        typer.Option(
            "--all-views",
            help="With --fill-cache: then fill all other views too, for other seeds and studies.",
        ),
    ] = False,
) -> None:
    """Train the study's teacher, or score the one that it names on the validation split."""
    from kdscale.workflow import teacher_score, train_study_teacher

    if all_views and not fill_cache:
        raise UserError("--all-views must come with --fill-cache (add it)")
    loaded = load_study(study, overrides)
    spec = loaded.task.teacher
    if spec.weights is None:
        with resumable(command_line("teacher", study, overrides)):
            for progress in train_study_teacher(loaded):
                print_epochs(progress, spec.epochs or loaded.budget.epochs)
        if progress.status == "failed":
            raise UserError(f"the teacher failed: {progress.reason}")
    score, path = teacher_score(loaded, output)
    print_plain(f"{spec.model}: validation accuracy {score.accuracy:.2f}%\nweights: {path}")
    if fill_cache:
        options = ["--fill-cache", *(["--all-views"] if all_views else [])]
        with resumable(command_line("teacher", study, overrides, *options)):
            _fill_cache(loaded, all_views=all_views)


@app.command()
def report(
    study: StudyPath,
    overrides: Overrides = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Write it again and again while a sweep runs; the open page follows by itself. "
            "Does not read the test set. Ends with the sweep, or with Ctrl-C.",
        ),
    ] = False,
    every: Annotated[
        float, typer.Option(min=1, help="With --watch: seconds between two writings.")
    ] = 15.0,
) -> None:
    """Write the report of a study, finished or not: HTML, CSV, Markdown, and tables for LaTeX."""
    from kdscale.search import open_ledger
    from kdscale.workflow import finish
    from kdscale.workflow import watch as watch_study

    loaded = load_study(study, overrides)
    ledger = open_ledger(loaded, create=False)
    if watch:
        try:
            for paths in watch_study(loaded, ledger, every):
                print_plain(f"report: {paths.html}, again in {every:g} s")
        except KeyboardInterrupt:
            print_plain("no longer watching: the page stays as it is now")
            return
        ledger = open_ledger(loaded, create=False)
    paths, record = finish(loaded, ledger)
    show_report(record, paths)


def _fill_cache(study: Study, *, all_views: bool) -> None:
    from kdscale.search import fill_cache
    from kdscale.terminal import show_filling

    filled = show_filling(fill_cache(study, all_views=all_views), console)
    places = "" if filled.folders == 1 else f" on {filled.folders} nodes"
    have = f"{filled.kept:,} of {filled.pairs:,} (image, view) pairs"
    print_plain(f"teacher cache: {have}, in {study.cache_folder}{places}")
    if filled.kept < filled.pairs:
        print_plain(
            "the others do not fit in task.teacher.cache.quota "
            f"({study.task.teacher.cache.quota} bytes): the live teacher computes them"
        )


def _start_over(study: Study, *, yes: bool) -> None:
    from kdscale.search import delete_study, sweep_lock, what_fresh_deletes

    lines = what_fresh_deletes(study)
    if not lines:
        return
    listed = "\n".join(f"  {line}" for line in lines)
    console.print(f"--fresh deletes:\n{escape(listed)}")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Delete these?")):
        raise UserError("--fresh: nothing was deleted (answer y, or add --yes)")
    with sweep_lock(study.folder):
        delete_study(study)
