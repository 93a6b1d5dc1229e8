"""Writing the report: HTML to look at, CSV to compute with, Markdown for a README."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from kdscale.analysis import _format as fmt
from kdscale.analysis._compute import compute_note
from kdscale.analysis._contents import Contents, Links
from kdscale.analysis._export import FORMATS, markdown_text, to_markdown, trials_csv
from kdscale.analysis._headline import headline
from kdscale.analysis._notes import curse_note, final_note, noise_note, training_note, warm_note
from kdscale.records import StudyRecord

_TITLES = {
    "configurations": "Configurations",
    "differences": "Differences",
    "importances": "Importances",
    "compute": "Accuracy against compute",
    "trials": "All trials",
}

TABLES = "report-tables"
"""Folder of the tables, in the report's folder."""


@dataclass(frozen=True)
class ReportPaths:
    """Where the report's files lie.

    Attributes:
        html: The page.
        csv: One row a trial, numbers unrounded.
        md: Sentences and tables as Markdown.
        tables: Each table as CSV, Markdown and LaTeX.
    """

    html: Path
    csv: Path
    md: Path
    tables: tuple[Path, ...] = ()


def write_report(
    study: StudyRecord, folder: Path, *, links: Links | None = None, refresh_seconds: float = 0.0
) -> ReportPaths:
    """Returns where it wrote the report: its page, its texts and ``report-tables``.

    Each file is replaced as a whole, so that a reader never sees half of one.

    Args:
        study: The study, finished or not.
        folder: Made if it is missing.
        links: Where trials are to be seen in MLflow.
        refresh_seconds: Pause after which the page loads itself again; 0 for never.
    """
    from kdscale.analysis._page import page_of

    contents = Contents(study, links)
    with threadpool_limits(limits=1):  # on small matrices threads only wait for each other
        return _written(contents, folder, page_of(contents, refresh_seconds))


def _written(contents: Contents, folder: Path, page: str) -> ReportPaths:
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    texts = {
        folder / "report.html": page,
        folder / "report.csv": trials_csv(contents.study),
        folder / "report.md": _markdown(contents),
    }
    html, csv, md = texts
    tables = {
        folder / TABLES / f"{name}.{ending}": write(table)
        for name, table in contents.tables.items()
        for ending, write in FORMATS.items()
    }
    for path, text in (texts | tables).items():
        replace_file(path, text)
    return ReportPaths(html, csv, md, tuple(tables))


def markdown(study: StudyRecord) -> str:
    """Returns the report's sentences and tables as Markdown."""
    return _markdown(Contents(study))


def _markdown(contents: Contents) -> str:
    return "\n".join(_blocks(contents))


def _blocks(contents: Contents) -> Iterator[str]:
    study, findings, tables = contents.study, contents.findings, contents.tables
    yield f"# {study.name}\n"
    for statement in headline(study, findings):
        yield f"**{statement.label}.** {markdown_text(statement.text)}\n"
    for note in (curse_note(findings), noise_note(findings), warm_note(findings)):
        if note:
            yield f"{markdown_text(note)}\n"
    yield "## Test set\n"
    if "test_set" in tables:
        yield to_markdown(tables["test_set"])
    yield f"{final_note(study)}\n"
    for name, title in _TITLES.items():
        if name in tables:
            yield f"## {title}\n"
            yield to_markdown(tables[name])
        if name == "compute" and (note := compute_note(study, contents.compute)):
            yield f"{markdown_text(note)}\n"
    yield "## Provenance\n"
    if study.teacher_note:
        yield f"Students see of the teacher: {study.teacher_note} (`task.teacher.cache`).\n"
    if note := training_note(study):
        yield f"{markdown_text(note)}\n"
    versions = [f"{name} {version}" for name, version in sorted(study.versions.items())]
    if study.commit:
        versions.append(f"commit `{study.commit}`")
    yield f"`kdscale sweep {study.name}.yaml`; {', '.join(versions) or fmt.NOTHING}\n"
    yield f"```yaml\n{study.study_file.strip()}\n```\n"


def replace_file(path: Path, text: str) -> None:
    """Writes a file so that no reader ever sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
