"""The report as one HTML page that needs no network and no file beside it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

from plotly.offline import get_plotlyjs

from kdscale.analysis import _format as fmt
from kdscale.analysis import _html
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._headline import difference_sentence, headline
from kdscale.analysis._notes import final_note, selection_note, training_note
from kdscale.analysis._plots import learning_curves, parallel_coordinates
from kdscale.analysis._summary import best_configuration
from kdscale.analysis._tables import configuration_table, final_table, trial_table
from kdscale.records import StudyRecord

# The page states itself that it loads nothing. Plotly compiles its parallel coordinates
# (unsafe-eval) and hands pictures out as blobs.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; worker-src blob:"
)


def page(study: StudyRecord) -> str:
    """Returns the whole page."""
    data: dict[str, Any] = {}
    body = "\n".join(_sections(study, data))
    title = f"{_html.escape(study.name)} · kdscale report"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{_asset("report.css")}</style>
</head>
<body>
<main>
{body}
</main>
{_html.data_block("report-data", data)}
<script>{get_plotlyjs() if data else ""}</script>
<script>
{_asset("report.js")}</script>
</body>
</html>
"""


def _sections(study: StudyRecord, data: dict[str, Any]) -> Iterator[str]:
    """Yields the sections in order and puts the figures that they hold into `data`."""
    name = _html.escape(study.name)
    yield f'<header><p class="kicker">kdscale report</p><h1>{name}</h1></header>'
    statements = ((statement.label, statement.text) for statement in headline(study))
    yield _section("summary", "", _html.definitions(statements, "headline"))
    yield _section("best", "Best configuration", _best(study))
    yield _section("test-set", "Test set", _final(study))
    yield _section("configurations", "Configurations", _configurations(study))
    yield _section("curves", "Learning curves", _curves(study, data))
    yield _section("parallel", "Parallel coordinates", _parallel(study, data))
    yield _section("trials", "All trials", _trials(study))
    yield _section("provenance", "Provenance", _provenance(study))


def _section(name: str, title: str, content: str) -> str:
    head = f"<h2>{title}</h2>\n" if title else ""
    return f'<section id="{name}">\n{head}{content}\n</section>'


def _note(text: str) -> str:
    return f'<p class="note">{_html.escape(text)}</p>' if text else ""


def _best(study: StudyRecord) -> str:
    best = best_configuration(study)
    if best is None or best.estimate is None:
        return _note("No trial has trained to the last epoch yet.")
    metric = MetricFormat(study.metric)
    chips = "".join(
        f"<div><dt>{_html.escape(name)}</dt><dd>{_html.escape(fmt.parameter(value))}</dd></div>"
        for name, value in best.parameters.items()
    )
    return (
        '<div class="card">'
        f'<p class="figure">{metric.value(best.estimate.mean)}</p>'
        f"<p>{_html.escape(metric.words)} {_html.escape(fmt.mode_words(study.mode))}<br>"
        f"{_html.escape(metric.known(best.estimate))}<br>configuration {best.name}</p>"
        f'<dl class="chips">{chips}</dl></div>'
        f"<p>{_html.escape(difference_sentence(study))}</p>{_note(selection_note(study))}"
    )


def _final(study: StudyRecord) -> str:
    note = _note(final_note(study))
    if study.final is None:
        return note
    return f"{_html.table_html(final_table(study.final), 'test accuracies')}\n{note}"


def _configurations(study: StudyRecord) -> str:
    decimals = MetricFormat(study.metric).decimals
    table = configuration_table(study)
    if not table.rows:
        return _note("No configuration has been asked for yet.")
    html = _html.table_html(table, "configurations by rank", sortable=True, decimals=decimals)
    return html + _note(
        "Mean over the seeds that trained to the last epoch, n of them; a dot is a seed, the bar "
        "their mean, the dashes the undistilled student. Configurations with more such seeds come "
        "first. The last columns list the seeds whose trial was pruned or failed."
    )


def _curves(study: StudyRecord, data: dict[str, Any]) -> str:
    curves = learning_curves(study)
    if curves is None:
        return _note("Nothing has trained yet.")
    data["curves"] = {"figure": curves.figure, "series": curves.series}
    options = "".join(
        f'<option value="{_html.escape(name)}">{_html.escape(MetricFormat(name).words)}</option>'
        for name in curves.series
    )
    return (
        f'<label class="pick">Metric <select id="curve-metric">{options}</select></label>'
        '<div class="plot tall" id="plot-curves"></div>'
        + _note(
            "One line a trial: colours are the best configurations, grey the others, dashes the "
            "undistilled student; pruned trials are faded. Click a name to hide it; "
            "double-click the plot to see the first epochs whole. " + curves.note
        )
    )


def _parallel(study: StudyRecord, data: dict[str, Any]) -> str:
    figure = parallel_coordinates(study)
    if figure is None:
        return _note("There is no trial with a value and a searched hyperparameter.")
    data["parallel"] = {"figure": figure}
    axes = len(figure["data"][0]["dimensions"])
    return (
        '<div class="scroll plain" tabindex="0" role="region" aria-label="parallel coordinates">'
        f'<div class="plot" id="plot-parallel" style="min-width: {axes * 7.5:g}rem"></div></div>'
        + _note(
            "One line a trial. Drag along an axis to select, click it to clear the selection; "
            "drag a name to move its axis. Trials that stopped early show the value of their last "
            "epoch."
        )
    )


def _trials(study: StudyRecord) -> str:
    table = trial_table(study)
    return _html.table_html(table, "trials by value", sortable=True) if table.rows else ""


def _provenance(study: StudyRecord) -> str:
    file = f"{study.name}.yaml"
    pairs = [
        ("Repeat with", f"kdscale sweep {file}"),
        ("Metric", f"{study.metric}, {study.goal}, {fmt.mode_words(study.mode)}"),
        ("Commit", study.commit or fmt.NOTHING),
        *([("Students see of the teacher", study.teacher_note)] if study.teacher_note else []),
        *((name, version) for name, version in sorted(study.versions.items())),
    ]
    return (
        f"{_note(training_note(study))}\n{_html.definitions(pairs, 'facts')}\n"
        f"<details open><summary>{_html.escape(file)}: the study file with all defaults and "
        f"overrides</summary><pre>{_html.escape(study.study_file)}</pre></details>"
    )


def _asset(name: str) -> str:
    return (resources.files("kdscale.analysis") / "assets" / name).read_text(encoding="utf-8")
