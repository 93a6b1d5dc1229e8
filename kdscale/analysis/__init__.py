"""From a study to what it shows: estimates, comparisons and the report."""

from kdscale.analysis._compare import StudyComparison
from kdscale.analysis._compare_page import ComparisonPaths, comparison_markdown, write_comparison
from kdscale.analysis._compare_text import comparison_headline
from kdscale.analysis._contents import Links
from kdscale.analysis._estimate import Difference, Estimate, Goal, estimate, paired_difference
from kdscale.analysis._export import markdown_text
from kdscale.analysis._final import final_evaluation
from kdscale.analysis._findings import Findings, Settlement
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._format import parameters as parameters_text
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
from kdscale.analysis._tasks import TaskStudies, tasks_headline
from kdscale.analysis._tasks_page import write_tasks_report

__all__ = [
    "ComparisonPaths",
    "ConfigurationSummary",
    "Cost",
    "Difference",
    "Estimate",
    "Findings",
    "Goal",
    "Links",
    "MetricFormat",
    "ReportPaths",
    "Settlement",
    "Statement",
    "StudyComparison",
    "TaskStudies",
    "best_configuration",
    "candidates",
    "comparison_headline",
    "comparison_markdown",
    "cost",
    "estimate",
    "final_difference",
    "final_evaluation",
    "headline",
    "markdown",
    "markdown_text",
    "paired_difference",
    "parameters_text",
    "summarise",
    "tasks_headline",
    "validation_difference",
    "write_comparison",
    "write_report",
    "write_tasks_report",
]
