"""What a command does across packages: search, then analysis, with tracking beside them."""

from __future__ import annotations

import math
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from kdscale.analysis import (
    ComparisonPaths,
    Links,
    ReportPaths,
    StudyComparison,
    best_configuration,
    comparison_markdown,
    final_evaluation,
    headline,
    markdown_text,
    write_comparison,
    write_report,
)
from kdscale.analysis.statistics import (
    PowerPlan,
    far_worse,
    noise_floor,
    power_plan,
    results_of,
    without,
)
from kdscale.data import load_data, normalise
from kdscale.errors import UserError
from kdscale.models import Network
from kdscale.records import StudyRecord, TrialRecord
from kdscale.search import (
    CohortSize,
    Ledger,
    Study,
    fetch_students,
    load_folder,
    load_study,
    open_ledger,
    record_snapshot,
)
from kdscale.search import train_teacher as train_study_teacher
from kdscale.terminal import SweepView
from kdscale.tracking import (
    Student,
    Summary,
    Tracker,
    make_tracker,
    register_student,
    run_links,
    shared_page,
    track_together,
    tracking_uri,
)
from kdscale.training import (
    Progress,
    Score,
    evaluate,
    load_network,
    load_teacher,
    store_teacher,
)

_REPORTS = ("report.html", "report.csv", "report.md")
_NAME_LENGTH = 100
_EXAMPLES = 4
"""Images that go with a model in MLflow; fewer than two would fix its batch size."""

__all__ = [
    "TrackedView",
    "compare",
    "finish",
    "load",
    "power_of",
    "show_together",
    "summary_of",
    "teacher_score",
    "track",
    "train_study_teacher",
    "watch",
]


def load(path: Path, overrides: list[str]) -> Study:
    """Returns the study of a study file, or of a study folder that a sweep has made.

    Raises:
        UserError: If the path is neither, or the folder has been renamed.
    """
    return load_folder(path, overrides) if path.is_dir() else load_study(path, overrides)


def finish(study: Study, ledger: Ledger) -> tuple[ReportPaths, StudyRecord]:
    """Returns the report's files and the study with its final evaluation.

    Reads the test set if the chosen configuration has not been evaluated on it yet.
    """
    record = ledger.record()
    if ledger.teacher is not None:
        fetch_students(study, [*record.trials, *record.controls])
        final = final_evaluation(record, study.task, ledger.teacher)
        if final is not None and final != record.final:
            ledger.save_final(final)
            record = ledger.record()
    return write_report(record, study.folder, links=_links(study)), record


def watch(study: Study, ledger: Ledger, every_seconds: float) -> Iterator[ReportPaths]:
    """Yields the report's files each time they are written, until all planned trials have ended.

    The page loads itself again as often. The test set is not read: that is the sweep's last act,
    and a report in between would read it for a choice that still changes. What is written last,
    also when the caller stops early, is a page that stays as it is.

    Args:
        study: The study, which another process trains.
        ledger: Its record.
        every_seconds: Pause between two writings.
    """
    record = ledger.record()
    try:
        while not _over(study, record):
            links = _links(study)
            yield write_report(record, study.folder, links=links, refresh_seconds=every_seconds)
            time.sleep(every_seconds)
            record = open_ledger(study, create=False).record()
    finally:
        write_report(record, study.folder, links=_links(study))


def _over(study: Study, record: StudyRecord) -> bool:
    """Returns whether all planned trials have ended, and what they show has been tested."""
    ended = sum(trial.has_ended for trial in record.trials)
    untested = record.final is None and any(trial.state == "done" for trial in record.trials)
    return ended >= study.trials and not untested


def _links(study: Study) -> Links:
    """Returns where the study's trials are to be seen in MLflow."""
    tracking = study.tracking
    if not tracking.mlflow:
        return Links()
    found = run_links(study.folder, tracking.uri, tracking.experiment or study.name)
    if not found.pages:
        return Links()
    if not found.needs_ui:
        return Links(found.pages, "Names lead to the trials' pages in MLflow.")
    command = shlex.join(["kdscale", "ui", str(study.folder)])
    return Links(
        found.pages, f"Names lead to the trials' pages in MLflow, while `{command}` runs here."
    )


def power_of(
    study: Study, difference: float | None, noise: str | None
) -> tuple[PowerPlan, str] | None:
    """Returns what a planned study can tell apart, and in words where the noise comes from.

    Args:
        study: The planned study.
        difference: The difference that is wanted to be seen, in the metric's unit; None where
            nothing is asked.
        noise: Standard deviation of one configuration over seeds, or the file or folder of a study
            that shows it. What part of a bare number pairing takes away is not known, so none is
            taken to.

    Raises:
        UserError: One of the two is missing, a number is out of range, or the study has too few
            trials to tell.
    """
    if difference is None:
        if noise is not None:
            raise UserError("--noise: must come with --power DIFFERENCE")
        return None
    if noise is None:
        raise UserError("--power: must come with --noise, a standard deviation or a study")
    _positive("--power", difference)
    try:
        sd, source = _positive("--noise", float(noise)), f"{noise} over seeds, as given"
    except ValueError:
        sd, source = _shown_noise(Path(noise))
    plan = power_plan(
        difference,
        sd * math.sqrt(2.0),
        seeds=len(study.seed_list),
        configurations=study.configurations,
    )
    return plan, source


def _shown_noise(path: Path) -> tuple[float, str]:
    """Returns the noise of a run that pairing leaves, as a study shows it, and how it is known."""
    record = record_snapshot(load(path, []))
    results = results_of(record)
    floor = noise_floor(without(results, far_worse(results)))
    if floor is None or floor.within.sd == 0.0:
        raise UserError(
            f"--noise: {path} shows none: no configuration has complete trials under two seeds "
            "with different values (give a standard deviation)"
        )
    own = floor.residual or floor.within
    paired = "after pairing" if floor.residual else "over seeds"
    source = (
        f"{own.sd:.3g} {paired} (95% interval {own.low:.3g} to {own.high:.3g}), from "
        f"{floor.trials} trials of {record.name}"
    )
    return own.sd, source


def _positive(flag: str, value: float) -> float:
    if not 0.0 < value < math.inf:
        raise UserError(f"{flag}: must be a finite number > 0, but got {value:g}")
    return value


def teacher_score(study: Study, output: Path | None) -> tuple[Score, Path]:
    """Returns the teacher's score on the validation split, and the file of its weights.

    Args:
        study: The study.
        output: Where to copy the weights, or None.

    Raises:
        UserError: If the teacher cannot be used, or its weights not be copied.
    """
    data = load_data(study.task.data)
    network = load_teacher(study.task.teacher, data, study.teacher_folder)
    score = evaluate([network], data.validation, data)[0]
    path = store_teacher(network, study.task.teacher, data.num_classes, study.folder)
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, output)
        except OSError as error:
            raise UserError(f"{output}: must be a file to write to, but: {error}") from error
        path = output
    return score, path


def track(
    study: Study,
    ledger: Ledger,
    *,
    rebuild: bool,
    on_unsent: Callable[[int], None],
    register: str | None = None,
) -> tuple[StudyRecord, int | None]:
    """Sends MLflow what it lacks of a study; returns the study, and the model's version if asked.

    Args:
        study: The study.
        ledger: Its record.
        rebuild: Whether to throw away what MLflow has of the study, and send it all again.
        on_unsent: Called again and again with the number of trials and files still to be sent.
        register: Name under which to register the best student's model; None to leave it.

    Raises:
        UserError: The study is not to be tracked, MLflow does not take everything, or there is
            no model to register.
    """
    tracking = study.tracking
    if not tracking.mlflow:
        raise UserError("tracking.mlflow: must be true for a study to be tracked, but is false")
    record = ledger.record()
    tracker = make_tracker(record, tracking.uri, tracking.experiment or "", rebuild=rebuild)
    for name in _REPORTS:
        if (study.folder / name).exists():
            tracker.log_file(study.folder / name)
    summary = summary_of(study, record)
    tracker.summarise(summary)
    tracker.wait(on_unsent)
    if tracker.problem:
        raise UserError(f"{tracker.problem} (the study has everything: track it again later)")
    if register is None:
        return record, None
    if summary.student is None:
        raise UserError(f"--register: there must be a best student, but {summary.missing}")
    return record, register_student(record, tracking.uri, tracking.experiment or "", register)


def compare(
    studies: Sequence[Study], folder: Path | None
) -> tuple[StudyComparison, ComparisonPaths]:
    """Returns a comparison of studies, and where its files lie.

    Args:
        studies: Two or more studies.
        folder: Folder for the files; None for one named after the studies.

    Raises:
        UserError: There is no such study, or they cannot be compared.
    """
    records = [record_snapshot(study) for study in studies]
    comparison = StudyComparison(records)
    return comparison, write_comparison(
        comparison, folder or Path("comparisons") / _joined(records)
    )


def show_together(
    studies: Sequence[Study],
    comparison: StudyComparison,
    folder: Path,
    on_unsent: Callable[[int], None],
) -> str:
    """Returns where MLflow shows compared studies together: a page, or the command that opens it.

    Studies that one server tracks are shown there; the runs of others are copied into a database
    in the comparison's folder.

    Args:
        studies: The studies.
        comparison: Their comparison.
        folder: The folder of its files.
        on_unsent: Called again and again with the number of a study's trials still to be copied.

    Raises:
        UserError: MLflow does not take everything, or cannot be asked.
    """
    places = {tracking_uri(study.folder, study.tracking.uri) for study in studies}
    if len(places) == 1 and all(study.tracking.mlflow for study in studies):
        # No two studies share a database of their own: this one is a server's or a team's.
        experiments = [study.tracking.experiment or study.name for study in studies]
        return shared_page(list(dict.fromkeys(experiments)), places.pop())
    records = list(comparison.studies.values())
    text = comparison_markdown(comparison, tables=False)
    track_together(records, folder, f"compare {_joined(records)}", text, on_unsent)
    return shlex.join(["kdscale", "ui", str(folder)])


def _joined(records: Sequence[StudyRecord]) -> str:
    return "+".join(record.name for record in records)[:_NAME_LENGTH]


def summary_of(study: Study, record: StudyRecord) -> Summary:
    """Returns what MLflow is to say of a study: the report's sentences and the best student."""
    told = {one.label: markdown_text(one.text) for one in headline(record)}
    # MLflow shows the first line alone until a reader opens the rest.
    first = told.pop("Answer")
    text = "\n\n".join([first, *(f"**{label}.** {line}" for label, line in told.items())])
    best = best_configuration(record)
    if best is None:
        return Summary(text, missing="no trial has trained to the last epoch")
    sign = -1.0 if record.goal == "maximize" else 1.0
    chosen = min(
        (t for t in record.trials if t.configuration == best.number and t.seed in best.values),
        key=lambda trial: (sign * best.values[trial.seed], trial.seed),
    )
    try:
        fetch_students(study, [chosen])
    except UserError as error:
        return Summary(text, best.name, missing=str(error))
    file = record.folder / (chosen.student or "")
    if chosen.student is None or not file.exists():
        missing = f"the study folder does not hold the weights of {chosen.name}"
        return Summary(text, best.name, missing=missing)

    def load_student() -> tuple[Network, Tensor]:
        data = load_data(study.task.data)
        images = data.validation.gather(torch.arange(min(_EXAMPLES, len(data.validation))))
        network = load_network(file, data.num_classes, data.image_size)
        return network, normalise(images, data.mean, data.std)

    return Summary(text, best.name, Student(chosen.name, file, load_student))


class TrackedView:
    """Shows a sweep, and sends what it shows to MLflow as well."""

    def __init__(self, study: Study, view: SweepView) -> None:
        self._study = study
        self._view = view
        self._tracker: Tracker | None = None

    def __enter__(self) -> Self:
        self._view.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._view.__exit__(kind, error, traceback)
        if error is not None:
            self.close()

    def on_teacher(self, progress: Progress) -> None:
        """Shows an epoch of the teacher."""
        self._view.on_teacher(progress)

    def on_start(self, ledger: Ledger, cohorts_at_once: int) -> None:
        """Shows the study as it stands, and starts to track it."""
        self._view.on_start(ledger, cohorts_at_once)
        self._open(ledger.record(), ledger.trial)

    def on_change(self, trial: TrialRecord) -> None:
        """Shows and tracks a trial."""
        self._view.on_change(trial)
        if self._tracker is not None:
            self._tracker.changed(trial.name)

    def on_size(self, size: CohortSize) -> None:
        """Shows how many trials train together."""
        self._view.on_size(size)

    def on_note(self, text: str) -> None:
        """Shows what the user must know."""
        self._view.on_note(text)

    def trouble(self) -> str:
        """Returns what MLflow has not taken, or nothing."""
        return "" if self._tracker is None else self._tracker.problem

    def attach(self, record: StudyRecord, paths: ReportPaths) -> None:
        """Adds the report to MLflow; where nothing was trained, also what MLflow may lack."""
        tracker = self._open(record)
        for path in (paths.html, paths.csv, paths.md):
            tracker.log_file(path)
        if self._study.tracking.mlflow:
            tracker.summarise(summary_of(self._study, record))

    def close(self) -> str:
        """Gives MLflow what it has not got yet, and returns what went wrong with that, if any."""
        if self._tracker is None:
            return ""
        self._tracker.close()
        return self._tracker.problem

    def _open(
        self, record: StudyRecord, find: Callable[[str], TrialRecord] | None = None
    ) -> Tracker:
        tracking = self._study.tracking
        if self._tracker is None:
            self._tracker = make_tracker(
                record, tracking.uri, tracking.experiment or "", tracking.mlflow, find=find
            )
        return self._tracker
