"""From a study to what it shows: estimates, comparisons and the report."""

from kdscale.analysis._estimate import Difference, Estimate, estimate, paired_difference
from kdscale.analysis._headline import Statement, headline
from kdscale.analysis._report import ReportPaths, markdown, write_report
from kdscale.analysis._summary import (
    ConfigurationSummary,
    Cost,
    best_configuration,
    candidates,
    cost,
    final_difference,
    summarise,
    validation_difference,
)

__all__ = [
    "ConfigurationSummary",
    "Cost",
    "Difference",
    "Estimate",
    "ReportPaths",
    "Statement",
    "best_configuration",
    "candidates",
    "cost",
    "estimate",
    "final_difference",
    "headline",
    "markdown",
    "paired_difference",
    "summarise",
    "validation_difference",
    "write_report",
]
