"""Statistics of a study: pure functions of a table of trials. Knows no Ray and no MLflow.

Every function says in its docstring which paper it follows and which error rate it holds.
"""

from kdscale.analysis.statistics._audit import Audit, CurveAudit, Test, audit
from kdscale.analysis.statistics._audit_table import (
    Cell,
    Curve,
    PublishedTable,
    curves_of,
    read_tables,
    shipped_tables,
)
from kdscale.analysis.statistics._differences import Comparison, best_mean, differences, holm
from kdscale.analysis.statistics._intervals import ConfigurationEstimate, configuration_estimates
from kdscale.analysis.statistics._noise import NoiseFloor, Spread, noise_floor
from kdscale.analysis.statistics._plateau import Plateau, plateau
from kdscale.analysis.statistics._power import detectable_difference, power, seeds_needed
from kdscale.analysis.statistics._results import Layout, Result, Results, results_of
from kdscale.analysis.statistics._shrinkage import BestValue, best_value

__all__ = [
    "Audit",
    "BestValue",
    "Cell",
    "Comparison",
    "ConfigurationEstimate",
    "Curve",
    "CurveAudit",
    "Layout",
    "NoiseFloor",
    "Plateau",
    "PublishedTable",
    "Result",
    "Results",
    "Spread",
    "Test",
    "audit",
    "best_mean",
    "best_value",
    "configuration_estimates",
    "curves_of",
    "detectable_difference",
    "differences",
    "holm",
    "noise_floor",
    "plateau",
    "power",
    "read_tables",
    "results_of",
    "seeds_needed",
    "shipped_tables",
]
