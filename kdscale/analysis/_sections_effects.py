"""Sections on what hyperparameters and budgets do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdscale.analysis import _format as fmt
from kdscale.analysis import _html
from kdscale.analysis._contents import sensitivity_name
from kdscale.analysis._notes import BAND_NOTE, effects_note, surface_note
from kdscale.analysis._plots_effects import (
    budget_figure,
    effect_figure,
    main_effect_figure,
    one_at_a_time_figure,
    surface_figures,
)
from kdscale.analysis._summary import configuration_name
from kdscale.analysis._tables_effects import MEASURE_NAMES

if TYPE_CHECKING:
    from kdscale.analysis._sections import Page

_MAIN = tuple(name for name in MEASURE_NAMES if not name.endswith("_pair"))
_PAIRS = ("sobol_pair", "fanova_pair")
_FEWEST_LINE = 3
_MOST_LINES = 8
_MOST_ROWS = 12


def one_at_a_time(page: Page) -> str:
    """Returns plots and tables of configurations that differ in one hyperparameter only."""
    lines = [line for line in page.findings.lines if len(line.values) >= _FEWEST_LINE]
    if not lines:
        return ""
    plots = "".join(
        page.plot(f"line-{place}", one_at_a_time_figure(page.findings, line), " small")
        for place, line in enumerate(lines)
    )
    tables = "".join(
        page.table(sensitivity_name(line.parameter), f"along {line.parameter}", sortable=False)
        for line in lines
    )
    baseline = configuration_name(lines[0].baseline)
    return f'<div class="grid">{plots}</div>{tables}' + _html.note(
        f"All other hyperparameters as in {baseline}. Blue: each mean with its 95% t interval over "
        "seeds. Grey: how far a mean may lie from that of the baseline by seed noise alone (95%, "
        "paired by seed, one comparison by itself): what stays inside is not distinguishable from "
        "noise. In bold, what is not distinguishable from the best of the whole study."
    )


def hyperparameters(page: Page) -> str:
    """Returns importances, interactions, curves and a surface; empty for few configurations."""
    findings = page.findings
    if not findings.effects:
        return ""
    parts = [
        _html.note(effects_note(findings)),
        _chosen(page, "importances", "Importance by", _MAIN),
    ]
    if any(name in findings.effects for name in _PAIRS):
        parts += ["<h3>Interactions</h3>", _chosen(page, "interactions", "Interaction by", _PAIRS)]
    if not findings.one_at_a_time_only:
        lines = [findings.surrogate.line(name) for name in findings.strongest[:_MOST_LINES]]
        plots = "".join(
            page.plot(f"effect-{place}", main_effect_figure(findings, line), " small")
            for place, line in enumerate(lines)
        )
        parts += ["<h3>Along each hyperparameter</h3>", f'<div class="grid">{plots}</div>']
    if len(findings.strongest) > 1:
        first, second = findings.strongest[:2]
        mean, sd = surface_figures(findings, findings.surrogate.surface(first, second))
        parts += [
            f"<h3>{_html.escape(first)} and {_html.escape(second)} together</h3>",
            f'<div class="grid">{page.plot("surface", mean, " small")}',
            f"{page.plot('surface-sd', sd, ' small')}</div>",
        ]
    parts += [_html.note(surface_note(findings))]
    return "".join([*parts, page.table("importances", "importances")])


def budget(page: Page) -> str:
    """Returns the expected best value against the budget; empty for fewer than two values."""
    known = page.findings.budget_curves
    curves = {curve.unit: budget_figure(page.findings, curve) for curve in known}
    if not curves:
        return ""
    names = {"trials": "trials", "seconds": "minutes of training"}
    unit = next(iter(curves))
    trials = known[0].trials
    return (
        page.picker("budget", "Against", {unit: names[unit] for unit in curves})
        + page.plot("budget", curves[unit], choices=curves)
        + _html.note(
            f"The best value to expect of a random choice of this study's trials "
            f"(n = {fmt.count(trials, 'complete trial')}; Tang et al., 2020, and Dodge et al., "
            f"2019). {BAND_NOTE} Where the curve is flat, a smaller search would have done. Of a "
            "model-based search the late trials are better than random ones, and flatter it."
        )
    )


def _chosen(page: Page, name: str, label: str, measures: tuple[str, ...]) -> str:
    told = {
        measure: sorted(page.findings.effects.get(measure, ()), key=lambda one: -one.excess)
        for measure in measures
    }
    figures = {
        measure: effect_figure(effects[:_MOST_ROWS]) for measure, effects in told.items() if effects
    }
    if not figures:
        return ""
    names = {measure: MEASURE_NAMES[measure] for measure in figures}
    first = next(iter(figures))
    return page.picker(name, label, names) + page.plot(name, figures[first], choices=figures)
