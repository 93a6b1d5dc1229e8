"""Writing the report: HTML to look at, CSV to compute with, Markdown for a README."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdscale.analysis import _format as fmt
from kdscale.analysis._headline import headline
from kdscale.analysis._notes import final_note, training_note
from kdscale.analysis._tables import (
    configuration_table,
    final_table,
    markdown_text,
    to_markdown,
    trial_table,
    trials_csv,
)
from kdscale.records import StudyRecord


@dataclass(frozen=True)
class ReportPaths:
    """Where the report's files lie."""

    html: Path
    csv: Path
    md: Path


def write_report(study: StudyRecord, folder: Path) -> ReportPaths:
    """Returns where it wrote the report: ``report.html``, ``report.csv`` and ``report.md``.

    Each file is replaced as a whole, so that a reader never sees half of one.

    Args:
        study: The study, finished or not.
        folder: Made if it is missing.
    """
    from kdscale.analysis._page import page

    folder.mkdir(parents=True, exist_ok=True)
    paths = ReportPaths(folder / "report.html", folder / "report.csv", folder / "report.md")
    _replace(paths.html, page(study))
    _replace(paths.csv, trials_csv(study))
    _replace(paths.md, markdown(study))
    return paths


def markdown(study: StudyRecord) -> str:
    """Returns the report's sentences and tables as Markdown."""
    return "\n".join(_blocks(study))


def _blocks(study: StudyRecord) -> Iterator[str]:
    yield f"# {study.name}\n"
    for statement in headline(study):
        yield f"**{statement.label}.** {markdown_text(statement.text)}\n"
    yield "## Test set\n"
    if study.final is not None:
        yield to_markdown(final_table(study.final))
    yield f"{final_note(study)}\n"
    yield "## Configurations\n"
    yield to_markdown(configuration_table(study))
    yield "## All trials\n"
    yield to_markdown(trial_table(study))
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


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
