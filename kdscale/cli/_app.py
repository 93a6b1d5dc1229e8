"""What all commands share: the application, the consoles, and how a study is given."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from kdscale import __version__
from kdscale.errors import UserError
from kdscale.urls import hide_passwords

if TYPE_CHECKING:  # importing torch takes seconds: each command imports what it needs
    from kdscale.analysis import ReportPaths, TaskStudies
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
TaskName = Annotated[str | None, typer.Option("--task", help="The task, of a study with several.")]

_BAD_INPUT = 2
_INTERRUPTED = 128 + signal.SIGINT


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
    """Runs the command line; a user's error is one plain message and exit code 2.

    So is a file that cannot be used, where no command had a message of its own for it.
    """
    try:
        app(prog_name="kdscale")
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        why = error.strerror or type(error).__name__
        name = error.filename
        rule = "must be a file or folder that can be read and written"
        _refuse(f"{os.fsdecode(name) if isinstance(name, bytes) else name}: {rule}, but: {why}")


def _refuse(text: str) -> NoReturn:
    errors.print(f"[red]error[/] {escape(hide_passwords(text))}")
    sys.exit(_BAD_INPUT)


def load_study(path: Path, overrides: list[str] | None) -> Study:
    from kdscale.workflow import load

    return load(path, overrides or [])


def load_task(path: Path, overrides: list[str] | None, task: str | None) -> Study:
    """Returns the study of one task, for commands that are about one."""
    from kdscale.tasks import task_of

    return task_of(load_study(path, overrides), task)


def task_option(task: str | None) -> list[str]:
    """Returns the option that names a task, to be typed again."""
    return ["--task", task] if task else []


@contextmanager
def resumable(command: str) -> Iterator[None]:
    """Ends on Ctrl-C, and says the command that continues."""
    try:
        yield
    except KeyboardInterrupt:
        print_plain(f"\nstopped; everything so far is kept. To continue:\n  {command}")
        raise typer.Exit(_INTERRUPTED) from None


def print_plain(text: str) -> None:
    """Prints a text as it is: no line breaks in paths and commands, which people copy."""
    console.print(text, markup=False, soft_wrap=True)


def print_epochs(progress: Progress, epochs: int) -> None:
    for row in progress.rows:
        console.print(
            f"epoch {row['epoch']:>3g}/{epochs}  lr {row['lr']:.4f}  "
            f"train loss {row['train_loss']:.3f}  validation {row['val_accuracy']:.2f}%"
        )
    if progress.status == "running" and progress.reason:
        print_plain(progress.reason)


def show_report(record: StudyRecord, paths: ReportPaths) -> None:
    from kdscale.analysis import headline

    for statement in headline(record):
        console.print(escape(statement.text))
    print_plain(f"report: {paths.html}")


def show_tasks_report(paths: ReportPaths, whole: TaskStudies) -> None:
    from kdscale.analysis import tasks_headline

    for statement in tasks_headline(whole):
        console.print(escape(statement.text))
    print_plain(f"report: {paths.html}")


def command_line(name: str, study: Path, overrides: list[str] | None, *options: str) -> str:
    """Returns a command as it could be typed, but for passwords: it may end in a log."""
    words = [hide_passwords(override) for override in overrides or ()]
    return shlex.join(["kdscale", name, str(study), *words, *options])
