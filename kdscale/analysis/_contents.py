"""What goes into a report: its statistics, its tables by name, and where trials are to be seen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from kdscale.analysis._compute import ComputePoint, compute_points
from kdscale.analysis._compute_view import compute_table
from kdscale.analysis._findings import Findings
from kdscale.analysis._tables import Table, configuration_table, final_table, trial_table
from kdscale.analysis._tables_effects import (
    difference_table,
    importance_table,
    sensitivity_table,
)
from kdscale.records import StudyRecord


@dataclass(frozen=True)
class Links:
    """Where trials are to be seen in MLflow.

    Attributes:
        pages: Name of a trial -> its page.
        note: What a reader must do for them to open; empty if nothing.
    """

    pages: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


class Contents:
    """A study's statistics and tables.

    Args:
        study: The study, finished or not.
        links: Where its trials are to be seen.
    """

    def __init__(self, study: StudyRecord, links: Links | None = None) -> None:
        self.study = study
        self.links = links or Links()
        self.findings = Findings(study)

    @cached_property
    def compute(self) -> tuple[ComputePoint, ...]:
        """What each configuration scored and cost; empty where nothing was measured."""
        return compute_points(self.study)

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """Name of a file without its ending -> table; only tables with rows."""
        study, findings = self.study, self.findings
        found = {
            "configurations": configuration_table(study, findings.plateau),
            "differences": difference_table(findings),
        }
        if study.final is not None:
            found["test_set"] = final_table(study.final)
        for line in findings.lines:
            found[sensitivity_name(line.parameter)] = sensitivity_table(findings, line)
        found["compute"] = compute_table(study, self.compute)
        found["importances"] = importance_table(findings)
        found["trials"] = trial_table(study, self.links.pages)
        return {name: table for name, table in found.items() if table.rows}


def sensitivity_name(parameter: str) -> str:
    """Returns the name of a hyperparameter's table, fit for a file."""
    return f"sensitivity_{re.sub(r'[^A-Za-z0-9.-]+', '_', parameter)}"
