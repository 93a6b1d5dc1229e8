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
    TaskName,
    app,
    command_line,
    console,
    errors,
    load_study,
    load_task,
    print_epochs,
    print_plain,
    resumable,
    show_report,
    show_tasks_report,
    task_option,
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
    from kdscale.tasks import told_of
    from kdscale.terminal import plan_view, power_view
    from kdscale.workflow import power_of

    loaded = load_study(study, overrides)
    plan = power_of(loaded, power, noise)
    for one in loaded.studies:
        with told_of(one, loaded):
            console.print(plan_view(one, check_study(one)))
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
    from kdscale.tasks import report_tasks, told_of, whole_study

    loaded = load_study(study, overrides)
    check_folder_stays(loaded)
    if fresh:
        _start_over(loaded, yes=yes)
    command = command_line("sweep", study, overrides)
    failed = False
    with whole_study(loaded):
        for one in loaded.studies:
            if loaded.tasks:
                console.print(f"[bold]{escape(one.name)}[/]")
            with told_of(one, loaded):
                failed |= _sweep(one, command)
        if loaded.tasks:
            show_tasks_report(*report_tasks(loaded))
    if failed:
        raise typer.Exit(1)


def _sweep(study: Study, command: str) -> bool:
    """Trains what a study misses, writes its report, and returns whether all trials failed."""
    from kdscale.search import sweep as run_sweep
    from kdscale.terminal import SweepView
    from kdscale.workflow import TrackedView, finish

    view = TrackedView(study, SweepView(console))
    with resumable(command), view:
        outcome = run_sweep(study, view)
    record = outcome.ledger.record()
    if not outcome.trained:
        console.print(
            f"nothing to train: all {len(record.trials)} trials of {record.name} have ended"
        )
    paths, record = finish(study, outcome.ledger)
    view.attach(record, paths)
    if problem := view.close():
        errors.print(f"[yellow]{escape(problem)}[/]")
    if not outcome.complete:
        print_plain(f"not complete ({outcome.stopped}). To continue:\n  {command}")
    if outcome.losses:
        print_plain(outcome.losses)
    show_report(record, paths)
    return bool(record.trials) and all(trial.state == "failed" for trial in record.trials)


@app.command()
def train(
    study: StudyPath,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trial.")] = 0,
    task: TaskName = None,
) -> None:
    """Train one trial in the foreground, without Ray: kdscale train STUDY alpha=9 depth=7."""
    from kdscale.analysis import parameters_text
    from kdscale.search import single_trial, train_single

    loaded = load_task(study, overrides, task)
    single = single_trial(loaded, seed)
    if single.defaults:
        values = {name: single.values[name] for name in single.defaults}
        console.print(f"not given, so at their defaults: {parameters_text(values)}")
    options = ["--seed", str(seed), *task_option(task)]
    with resumable(command_line("train", study, overrides, *options)):
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
    task: TaskName = None,
) -> None:
    """Train the study's teacher, or score the one that it names on the validation split."""
    from kdscale.search import make_folder
    from kdscale.workflow import teacher_score, train_study_teacher

    if all_views and not fill_cache:
        raise UserError("--all-views must come with --fill-cache (add it)")
    loaded = load_task(study, overrides, task)
    make_folder(loaded.folder)
    spec = loaded.task.teacher
    if spec.weights is None:
        with resumable(command_line("teacher", study, overrides, *task_option(task))):
            for progress in train_study_teacher(loaded):
                print_epochs(progress, spec.epochs or loaded.budget.epochs)
        if progress.status == "failed":
            raise UserError(f"the teacher failed: {progress.reason}")
    score, path = teacher_score(loaded, output)
    print_plain(f"{spec.model}: validation accuracy {score.accuracy:.2f}%\nweights: {path}")
    if fill_cache:
        options = ["--fill-cache", *(["--all-views"] if all_views else []), *task_option(task)]
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
    from kdscale.tasks import finish_tasks, watch_tasks
    from kdscale.workflow import finish
    from kdscale.workflow import watch as watch_study

    loaded = load_study(study, overrides)
    ledger = None if loaded.tasks else open_ledger(loaded, create=False)
    if watch:
        writings = (
            watch_tasks(loaded, every) if ledger is None else watch_study(loaded, ledger, every)
        )
        try:
            for paths in writings:
                print_plain(f"report: {paths.html}, again in {every:g} s")
        except KeyboardInterrupt:
            print_plain("no longer watching: the page stays as it is now")
            return
    if ledger is None:
        show_tasks_report(*finish_tasks(loaded))
        return
    paths, record = finish(loaded, open_ledger(loaded, create=False))
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

    everything = [*study.studies, *([study] if study.tasks else [])]
    lines = list(dict.fromkeys(line for one in everything for line in what_fresh_deletes(one)))
    if not lines:
        return
    listed = "\n".join(f"  {line}" for line in lines)
    console.print(f"--fresh deletes:\n{escape(listed)}")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Delete these?")):
        raise UserError("--fresh: nothing was deleted (answer y, or add --yes)")
    for one in everything:
        with sweep_lock(one.folder):
            delete_study(one, lambda note: console.print(f"[yellow]{escape(note)}[/]"))
