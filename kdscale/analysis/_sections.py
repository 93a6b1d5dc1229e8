"""The sections of the page, in order; one that has nothing to show is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kdscale.analysis import _format as fmt
from kdscale.analysis import _html
from kdscale.analysis._compute import compute_note
from kdscale.analysis._compute_view import compute_figure
from kdscale.analysis._contents import Contents
from kdscale.analysis._export import trials_csv
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._headline import difference_sentence, headline
from kdscale.analysis._notes import (
    curse_note,
    difference_note,
    final_note,
    left_out,
    noise_note,
    race_note,
    selection_note,
    training_note,
    warm_note,
)
from kdscale.analysis._plots import learning_curves, parallel_coordinates
from kdscale.analysis._sections_effects import budget, hyperparameters, one_at_a_time
from kdscale.analysis._sheet import Sheet
from kdscale.analysis._summary import nodes

_FEWEST_POINTS = 2


class Page(Sheet):
    """A report's page in the making.

    Args:
        contents: What goes into it.
    """

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents.tables, MetricFormat(contents.study.metric).decimals)
        self.contents = contents
        self.study = contents.study
        self.findings = contents.findings

    def texts(self, name: str) -> Mapping[str, str]:
        """Returns a table as text; of all trials CSV alone.

        Thousands of them in three formats would make the page heavy.
        """
        return {"csv": trials_csv(self.study)} if name == "trials" else super().texts(name)


def sections(page: Page) -> Iterator[str]:
    """Yields the sections in order and puts what they need into the page."""
    name = _html.escape(page.study.name)
    yield f'<header><p class="kicker">kdscale report</p><h1>{name}</h1></header>'
    told = ((one.label, one.text) for one in headline(page.study, page.findings))
    parts = (
        ("summary", "", _html.definitions(told, "headline")),
        ("best", "Best configuration", _best(page)),
        ("test-set", "Test set", _final(page)),
        ("configurations", "Configurations", _configurations(page)),
        ("differences", "Differences", _differences(page)),
        ("sensitivity", "One hyperparameter at a time", one_at_a_time(page)),
        ("effects", "What the hyperparameters do", hyperparameters(page)),
        ("parallel", "Parallel coordinates", _parallel(page)),
        ("curves", "Learning curves", _curves(page)),
        ("budget", "What a smaller search would have found", budget(page)),
        ("compute", "Accuracy against compute", _compute(page)),
        ("trials", "All trials", _trials(page)),
        ("left-out", "Not in this report", _left_out(page)),
        ("provenance", "Provenance", _provenance(page)),
    )
    for place, title, content in parts:
        if content:
            head = f"<h2>{title}</h2>\n" if title else ""
            yield f'<section id="{place}">\n{head}{content}\n</section>'


def _best(page: Page) -> str:
    study, best = page.study, page.findings.best
    if best is None or best.estimate is None:
        return _html.note("No trial has trained to the last epoch yet.")
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
        f"<p>{_html.escape(difference_sentence(study))}</p>"
        f"{_html.note(curse_note(page.findings) or selection_note(study))}"
        f"{_html.note(noise_note(page.findings))}"
        f"{_html.note(warm_note(page.findings))}"
    )


def _final(page: Page) -> str:
    return f"{page.table('test_set', 'test accuracies', sortable=False)}" + _html.note(
        final_note(page.study)
    )


def _configurations(page: Page) -> str:
    table = page.table("configurations", "configurations by rank")
    if not table:
        return _html.note("No configuration has been asked for yet.")
    return table + _html.note(
        "Mean over the seeds that trained to the last epoch, n of them; a dot is a seed, the bar "
        "their mean, the dashes the undistilled student. In bold, the plateau: all configurations "
        "that are not distinguishable from the best (Tukey's test for all pairs, paired by seed; "
        "5% chance of any wrong claim). Configurations with more such seeds come first. The last "
        "columns list the seeds whose trial was pruned or failed; such trials enter no mean, since "
        "their values come from fewer epochs. " + race_note(page.study)
    )


def _differences(page: Page) -> str:
    if len(page.findings.estimates) < 2 and not page.findings.to_undistilled:
        return ""
    table = page.table("differences", "differences by rank")
    return table and table + _html.note(difference_note(page.findings))


def _curves(page: Page) -> str:
    curves = learning_curves(page.study)
    if curves is None:
        return ""
    choices = {name: MetricFormat(name).words for name in curves.series}
    return (
        page.picker("curves", "Metric", choices)
        + page.plot("curves", curves.figure, " tall", series=curves.series)
        + _html.note(
            "One line a trial: colours are the best configurations, grey the others, dashes the "
            "undistilled student; pruned trials are faded. Click a name to hide it; "
            "double-click the plot to see the first epochs whole. " + curves.note
        )
    )


def _parallel(page: Page) -> str:
    figure = parallel_coordinates(page.study)
    if figure is None:
        return ""
    axes = len(figure["data"][0]["dimensions"])
    width = f'style="min-width: {axes * 7.5:g}rem"'
    return (
        '<div class="scroll plain" tabindex="0" role="region" aria-label="parallel coordinates">'
        + page.plot("parallel", figure).replace('"></div>', f'" {width}></div>')
        + "</div>"
        + _html.note(
            "One line a trial. Drag along an axis to select, click it to clear the selection; "
            "drag a name to move its axis. Trials that stopped early show the value of their last "
            "epoch."
        )
    )


def _compute(page: Page) -> str:
    points = page.contents.compute
    if len(points) < _FEWEST_POINTS:
        return ""
    return (
        page.plot("compute", compute_figure(page.study, points))
        + _html.note(compute_note(page.study, points))
        + page.table("compute", "configurations by cost")
    )


def _trials(page: Page) -> str:
    return page.table("trials", "trials by value") + _html.note(page.contents.links.note)


def _left_out(page: Page) -> str:
    items = "".join(f"<li>{_html.escape(text)}</li>" for text in left_out(page.findings))
    return f'<ul class="note">{items}</ul>' if items else ""


def _provenance(page: Page) -> str:
    study = page.study
    file = f"{study.name}.yaml"
    ran_on = nodes(study)
    pairs = [
        ("Repeat with", f"kdscale sweep {file}"),
        ("Metric", f"{study.metric}, {study.goal}, {fmt.mode_words(study.mode)}"),
        ("Commit", study.commit or fmt.NOTHING),
        *([("Students see of the teacher", study.teacher_note)] if study.teacher_note else []),
        *([("Ran on", fmt.listed(ran_on))] if ran_on else []),
        *((name, version) for name, version in sorted(study.versions.items())),
    ]
    return (
        f"{_html.note(training_note(study))}\n{_html.definitions(pairs, 'facts')}\n"
        f"<details open><summary>{_html.escape(file)}: the study file with all defaults and "
        f"overrides</summary><pre>{_html.escape(study.study_file)}</pre></details>"
    )
