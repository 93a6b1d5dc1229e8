"""The report on a study of several tasks: one page over the tasks' own reports."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Iterator
from pathlib import Path

from threadpoolctl import threadpool_limits

from kdscale.analysis import _html
from kdscale.analysis._export import FORMATS, markdown_text, to_markdown, trials_csv
from kdscale.analysis._plots import COLOURED, Json, round_digits
from kdscale.analysis._report import TABLES, ReportPaths, replace_file
from kdscale.analysis._sheet import Sheet
from kdscale.analysis._summary import configuration_name
from kdscale.analysis._tasks import TaskContents, TaskStudies
from kdscale.analysis.statistics import Regrets

_TITLES = {"tasks": "Tasks", "regret": "Regret across tasks", "means": "Means by task"}
_MOST_DRAWN = 40
_SHIFT = 0.5
_REGRET_NOTE = (
    "The regret of a configuration on a task is the best mean there less its own, among the "
    "configurations that all tasks have; its worst case is the largest of its regrets. In bold, "
    "all whose worst case could be the least. The intervals of all tasks hold together (Tukey's "
    "bounds, paired by seed; 5% chance of any wrong one). The best of a task is chosen on the same "
    "trials, so small regrets are in part luck."
)
_MEANS_NOTE = (
    "Mean over the seeds that trained to the last epoch. In bold, for each task, all that are not "
    "distinguishable from its best."
)


def write_tasks_report(
    whole: TaskStudies, folder: Path, *, refresh_seconds: float = 0.0
) -> ReportPaths:
    """Returns where it wrote the report over all tasks; their own reports are not written.

    Args:
        whole: The study, at least one of its tasks begun.
        folder: Made if it is missing; the tasks' own folders lie in it.
        refresh_seconds: Pause after which the page loads itself again; 0 for never.
    """
    from kdscale.analysis._page import document

    contents = TaskContents(whole)
    with threadpool_limits(limits=1):  # on small matrices threads only wait for each other
        sheet = Sheet(contents.tables, contents.metric.decimals)
        body = "\n".join(_sections(contents, sheet))
        page = document(f"{whole.name} · kdscale report", body, sheet, refresh_seconds)
        text = "\n".join(_blocks(contents))
    html, csv, md = (folder / f"report.{ending}" for ending in ("html", "csv", "md"))
    texts = {html: page, csv: _trials(whole), md: text}
    tables = {
        folder / TABLES / f"{name}.{ending}": write(table)
        for name, table in contents.tables.items()
        for ending, write in FORMATS.items()
    }
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    for path, text in (texts | tables).items():
        replace_file(path, text)
    return ReportPaths(html, csv, md, tuple(tables))


def _sections(contents: TaskContents, sheet: Sheet) -> Iterator[str]:
    whole = contents.whole
    name = _html.escape(whole.name)
    yield f'<header><p class="kicker">kdscale report</p><h1>{name}</h1></header>'
    told = ((one.label, one.text) for one in contents.headline())
    parts = (
        ("summary", "", _html.definitions(told, "headline")),
        ("tasks", _TITLES["tasks"], sheet.table("tasks", "tasks") + _html.note(_links(whole))),
        ("regret", _TITLES["regret"], _regret(contents, sheet)),
        ("means", _TITLES["means"], _means(sheet)),
        ("provenance", "Provenance", _provenance(whole)),
    )
    for place, title, content in parts:
        if content:
            head = f"<h2>{title}</h2>\n" if title else ""
            yield f'<section id="{place}">\n{head}{content}\n</section>'


def _links(whole: TaskStudies) -> str:
    text = "Names lead to the tasks' own reports."
    return f"{text} Not begun: {', '.join(whole.waiting)}." if whole.waiting else text


def _regret(contents: TaskContents, sheet: Sheet) -> str:
    found = contents.regrets
    if found is None:
        return ""
    unit = ", points" if contents.metric.percent else ""
    plot = sheet.plot("regret", regret_figure(found, unit))
    return plot + sheet.table("regret", "regret by configuration") + _html.note(_note(found))


def _note(found: Regrets) -> str:
    if not found.left_out:
        return _REGRET_NOTE
    return (
        f"{_REGRET_NOTE} {found.left_out} configurations are not here, since some task lacks a "
        "trial of theirs that trained to the last epoch."
    )


def _means(sheet: Sheet) -> str:
    table = sheet.table("means", "means by configuration")
    return table and table + _html.note(_MEANS_NOTE)


def _provenance(whole: TaskStudies) -> str:
    file = f"{whole.name}.yaml"
    pairs = [("Repeat with", f"kdscale sweep {file}")]
    return (
        f"{_html.definitions(pairs, 'facts')}\n<details open><summary>{_html.escape(file)}: the "
        f"study file with all overrides</summary><pre>{_html.escape(whole.study_file)}</pre>"
        "</details>"
    )


def regret_figure(found: Regrets, unit: str = "") -> Json:
    """Returns each configuration's regret on each task with its interval, the least first."""
    rows = found.rows[:_MOST_DRAWN]
    traces = []
    for place, task in enumerate(found.tasks):
        known = [row.by_task[task] for row in rows]
        shift = _SHIFT * ((place + 0.5) / len(found.tasks) - 0.5)
        trace = {
            "type": "scatter",
            "mode": "markers",
            "cliponaxis": False,
            "name": _html.escape(task),
            "x": [round_digits(index + shift) for index in range(len(rows))],
            "y": [round_digits(one.mean) for one in known],
            "marker": {"size": 8, "color": f"var(--c{place % COLOURED})"},
            "text": [
                f"{configuration_name(row.configuration)} on {_html.escape(task)}: "
                f"{one.mean:.4g} (n = {one.n})"
                for row, one in zip(rows, known, strict=True)
            ],
            "hovertemplate": "%{text}<extra></extra>",
        }
        if all(one.low is not None and one.high is not None for one in known):
            trace["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": [round_digits((one.high or 0.0) - one.mean) for one in known],
                "arrayminus": [round_digits(one.mean - (one.low or 0.0)) for one in known],
                "thickness": 1,
                "width": 0,
            }
        traces.append(trace)
    names = [configuration_name(row.configuration) for row in rows]
    layout = {
        "xaxis": {
            "title": {"text": "configurations, the least worst-case regret first"},
            "tickvals": list(range(len(rows))),
            "ticktext": names,
            "range": [-0.6, len(rows) - 0.4],
        },
        "yaxis": {"title": {"text": f"regret{unit}"}, "rangemode": "tozero"},
        "margin": {"l": 64, "r": 16, "t": 28, "b": 72},
        "legend": {"orientation": "h", "y": 1.08},
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def _blocks(contents: TaskContents) -> Iterator[str]:
    whole, tables = contents.whole, contents.tables
    notes = {"tasks": _links(whole), "means": _MEANS_NOTE}
    if contents.regrets is not None:
        notes["regret"] = _note(contents.regrets)
    yield f"# {whole.name}\n"
    for statement in contents.headline():
        yield f"**{statement.label}.** {markdown_text(statement.text)}\n"
    for name, title in _TITLES.items():
        if name in tables:
            yield f"## {title}\n"
            yield to_markdown(tables[name])
            yield f"{markdown_text(notes[name])}\n"
    yield "## Provenance\n"
    yield f"`kdscale sweep {whole.name}.yaml`\n"
    yield f"```yaml\n{whole.study_file.strip()}\n```\n"


def _trials(whole: TaskStudies) -> str:
    """Returns the trials of all tasks as CSV, one row a trial, numbers unrounded."""
    rows = [
        {"task": task, **row}
        for task, study in whole.studies.items()
        for row in csv_format.DictReader(io.StringIO(trials_csv(study)))
    ]
    out = io.StringIO()
    heads = dict.fromkeys(head for row in rows for head in row)
    writer = csv_format.DictWriter(out, list(heads), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
