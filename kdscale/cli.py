"""The commands of `kdscale`. Each one reads its arguments, calls the library, and shows."""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kdscale import __version__
from kdscale.errors import UserError, did_you_mean

if TYPE_CHECKING:  # importing torch takes seconds: each command imports what it needs
    from kdscale.analysis import Goal, ReportPaths
    from kdscale.records import StudyRecord
    from kdscale.search import Study
    from kdscale.training import Progress

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Search the loss weights of knowledge distillation, and know whether the difference "
    "is real.",
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

StudyPath = Annotated[Path, typer.Argument(help="A study file, or the folder of a study.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Overrides such as [bold]alpha=interval(0,14)[/] or [bold]budget.trials=20[/]."
    ),
]

_BAD_INPUT = 2
_INTERRUPTED = 128 + signal.SIGINT


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

    loaded = _load(study, overrides)
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

    loaded = _load(study, overrides)
    check_folder_stays(loaded)
    if fresh:
        _start_over(loaded, yes=yes)
    command = _command("sweep", study, overrides)
    view = TrackedView(loaded, SweepView(console))
    with _resumable(command), view:
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
        _print(f"not complete ({outcome.stopped}). To continue:\n  {command}")
    _show_report(record, paths)
    if record.trials and all(trial.state == "failed" for trial in record.trials):
        raise typer.Exit(1)


@app.command()
def submit(
    study: StudyPath,
    to: Annotated[str, typer.Option(help="ray, kuberay, slurm or local.")],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be submitted; submit nothing.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="ray: the dashboard; default: RAY_ADDRESS.")
    ] = None,
    cohorts: Annotated[
        int | None, typer.Option(min=1, help="Cohorts at once; default: a generation's.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes; default: 1.")] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs of a node; default: what the study takes.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of a node; default: what the study takes.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="slurm: the partition.")] = None,
    time: Annotated[
        str | None, typer.Option(help="slurm: time until it is requeued; default: 24:00:00.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="kuberay: image with kdscale.")] = None,
    namespace: Annotated[str | None, typer.Option(help="kuberay: the namespace.")] = None,
    queue: Annotated[str | None, typer.Option(help="kuberay: Kueue's local queue.")] = None,
    claim: Annotated[
        str | None, typer.Option(help="kuberay: volume claim for storage.folder.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="kuberay: memory of a worker pod.")] = None,
) -> None:
    """Run a sweep elsewhere: a Ray cluster, KubeRay, Slurm; or here. Submit again to continue."""
    from kdscale import launch

    options = launch.Options(
        address, cohorts, nodes, cpus, gpus, partition, time, image, namespace, queue, claim, memory
    )
    loaded = _load(study, overrides)
    request = launch.make_request(loaded, study, overrides or [], to, options)
    artefact = launch.render(request)
    if dry_run:
        _print(artefact.text + "\n".join(artefact.comments()))
        return
    told = launch.submit(request, artefact)
    if isinstance(told, int):
        raise typer.Exit(told)
    _print("\n".join(told))


@app.command()
def train(
    study: StudyPath,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trial.")] = 0,
) -> None:
    """Train one trial in the foreground, without Ray: kdscale train STUDY alpha=9 depth=7."""
    from kdscale.analysis import parameters_text
    from kdscale.search import single_trial, train_single

    loaded = _load(study, overrides)
    single = single_trial(loaded, seed)
    if single.defaults:
        values = {name: single.values[name] for name in single.defaults}
        console.print(f"not given, so at their defaults: {parameters_text(values)}")
    with _resumable(_command("train", study, overrides, "--seed", str(seed))):
        for progress in train_single(loaded, single):
            _print_epochs(progress, loaded.budget.epochs)
    if progress.status == "failed":
        raise UserError(f"the trial failed: {progress.reason}")
    _print(f"student: {single.student}")


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
    loaded = _load(study, overrides)
    spec = loaded.task.teacher
    if spec.weights is None:
        with _resumable(_command("teacher", study, overrides)):
            for progress in train_study_teacher(loaded):
                _print_epochs(progress, spec.epochs or loaded.budget.epochs)
        if progress.status == "failed":
            raise UserError(f"the teacher failed: {progress.reason}")
    score, path = teacher_score(loaded, output)
    _print(f"{spec.model}: validation accuracy {score.accuracy:.2f}%\nweights: {path}")
    if fill_cache:
        options = ["--fill-cache", *(["--all-views"] if all_views else [])]
        with _resumable(_command("teacher", study, overrides, *options)):
            _fill_cache(loaded, all_views=all_views)


@app.command()
def report(study: StudyPath, overrides: Overrides = None) -> None:
    """Write the report of a study, finished or not: HTML, CSV and Markdown."""
    from kdscale.search import open_ledger
    from kdscale.workflow import finish

    loaded = _load(study, overrides)
    paths, record = finish(loaded, open_ledger(loaded, create=False))
    _show_report(record, paths)


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

    if noise is not None and not 0.0 < noise < math.inf:
        raise UserError(f"--noise: must be a finite number > 0, but got {noise:g}")
    goal: Goal = "minimize" if minimize else "maximize"
    console.print(audit_view(audit_tables(read_tables(table), goal=goal, noise=noise)))


@app.command()
def ui(
    study: StudyPath,
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web page.")] = 5000,
) -> None:
    """Open MLflow's user interface on a study, on this machine's loopback address."""
    from kdscale.tracking import mlflow_environment, ui_command

    loaded = _load(study, overrides)
    uri = loaded.tracking.uri
    if uri is None and not loaded.folder.exists():
        raise UserError(
            f"{loaded.folder}: there must be a study to look at (kdscale sweep makes it)"
        )
    command = ui_command(loaded.folder, uri, port=port)
    _print(f"{loaded.name} in MLflow: http://127.0.0.1:{port}/ (Ctrl-C ends it)")
    raise typer.Exit(subprocess.call(command, env={**os.environ, **mlflow_environment()}))


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
def convert_weights_command(
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


def _fill_cache(study: Study, *, all_views: bool) -> None:
    from kdscale.search import fill_cache
    from kdscale.terminal import show_filling

    filled = show_filling(fill_cache(study, all_views=all_views), console)
    places = "" if filled.folders == 1 else f" on {filled.folders} nodes"
    have = f"{filled.kept:,} of {filled.pairs:,} (image, view) pairs"
    _print(f"teacher cache: {have}, in {study.cache_folder}{places}")
    if filled.kept < filled.pairs:
        _print(
            "the others do not fit in task.teacher.cache.quota "
            f"({study.task.teacher.cache.quota} bytes): the live teacher computes them"
        )


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Takes what comes before the command."""


def main() -> None:
    """Runs the command line; a user's error is one plain message and exit code 2."""
    try:
        app(prog_name="kdscale")
    except UserError as error:
        errors.print(f"[red]error[/] {escape(str(error))}")
        sys.exit(_BAD_INPUT)


def _load(path: Path, overrides: list[str] | None) -> Study:
    from kdscale.workflow import load

    return load(path, overrides or [])


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


@contextmanager
def _resumable(command: str) -> Iterator[None]:
    """Ends on Ctrl-C, and says the command that continues."""
    try:
        yield
    except KeyboardInterrupt:
        _print(f"\nstopped; everything so far is kept. To continue:\n  {command}")
        raise typer.Exit(_INTERRUPTED) from None


def _print(text: str) -> None:
    """Prints a text as it is: no line breaks in paths and commands, which people copy."""
    console.print(text, markup=False, soft_wrap=True)


def _print_epochs(progress: Progress, epochs: int) -> None:
    for row in progress.rows:
        console.print(
            f"epoch {row['epoch']:>3g}/{epochs}  lr {row['lr']:.4f}  "
            f"train loss {row['train_loss']:.3f}  validation {row['val_accuracy']:.2f}%"
        )


def _show_report(record: StudyRecord, paths: ReportPaths) -> None:
    from kdscale.analysis import headline

    for statement in headline(record):
        console.print(escape(statement.text))
    _print(f"report: {paths.html}")


def _command(name: str, study: Path, overrides: list[str] | None, *options: str) -> str:
    return shlex.join(["kdscale", name, str(study), *(overrides or ()), *options])
