"""What a planned study will be able to tell apart."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from kdscale.analysis.statistics import PowerPlan


def power_view(plan: PowerPlan, source: str) -> Table:
    """Returns the seeds that the wanted difference needs, as rows below the plan.

    Args:
        plan: What the study can tell.
        source: Where the noise comes from, in words.
    """
    table = Table(box=None, show_header=False, padding=(0, 1), show_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rivals = plan.configurations - 1
    table.add_row("noise", escape(source))
    table.add_row(
        "power",
        f"a difference of {plan.difference:g} between two configurations needs "
        f"{_seeds(plan.needed_one)}"
        + (f"; of each of {rivals} to one, {_seeds(plan.needed_all)}" if rivals > 1 else "")
        + " (paired t-test, 80% power, 5% errors)",
    )
    table.add_row("", _seen(plan, rivals))
    return table


def _seeds(number: int | None) -> str:
    return "more than a million seeds" if number is None else f"{number:,} paired seeds"


def _seen(plan: PowerPlan, rivals: int) -> str:
    if plan.seen_one is None or plan.seen_all is None:
        return "the plan has 1 seed, which shows no noise and so no difference"
    text = f"the plan's {plan.seeds} seeds show differences of {plan.seen_one:.2g} between two"
    return text + (f", {plan.seen_all:.2g} to one of all" if rivals > 1 else "")
