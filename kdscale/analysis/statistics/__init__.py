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
from kdscale.analysis.statistics._budget import (
    FEWEST_TO_SEARCH,
    BudgetCurve,
    BudgetGap,
    at_equal_budget,
    budget_in_seconds,
    budget_in_trials,
    expected_best,
)
from kdscale.analysis.statistics._compare import (
    MethodComparison,
    almost_stochastic_order,
    compare_methods,
)
from kdscale.analysis.statistics._differences import Comparison, best_mean, differences, holm
from kdscale.analysis.statistics._effects import NO_EFFECT, Effect, design, effects
from kdscale.analysis.statistics._far_out import common_range, far_worse, without
from kdscale.analysis.statistics._intervals import ConfigurationEstimate, configuration_estimates
from kdscale.analysis.statistics._measures import MEASURES
from kdscale.analysis.statistics._noise import NoiseFloor, Spread, noise_floor
from kdscale.analysis.statistics._one_at_a_time import OneAtATime, one_at_a_time
from kdscale.analysis.statistics._plateau import Plateau, plateau
from kdscale.analysis.statistics._power import (
    PowerPlan,
    detectable_difference,
    power,
    power_plan,
    seeds_needed,
)
from kdscale.analysis.statistics._race import race
from kdscale.analysis.statistics._regret import Regret, Regrets, regrets
from kdscale.analysis.statistics._results import Layout, Result, Results, results_of
from kdscale.analysis.statistics._shrinkage import BestValue, best_value
from kdscale.analysis.statistics._surface import Line, Surface, Surrogate
from kdscale.racing import Race

__all__ = [
    "FEWEST_TO_SEARCH",
    "MEASURES",
    "NO_EFFECT",
    "Audit",
    "BestValue",
    "BudgetCurve",
    "BudgetGap",
    "Cell",
    "Comparison",
    "ConfigurationEstimate",
    "Curve",
    "CurveAudit",
    "Effect",
    "Layout",
    "Line",
    "MethodComparison",
    "NoiseFloor",
    "OneAtATime",
    "Plateau",
    "PowerPlan",
    "PublishedTable",
    "Race",
    "Regret",
    "Regrets",
    "Result",
    "Results",
    "Spread",
    "Surface",
    "Surrogate",
    "Test",
    "almost_stochastic_order",
    "at_equal_budget",
    "audit",
    "best_mean",
    "best_value",
    "budget_in_seconds",
    "budget_in_trials",
    "common_range",
    "compare_methods",
    "configuration_estimates",
    "curves_of",
    "design",
    "detectable_difference",
    "differences",
    "effects",
    "expected_best",
    "far_worse",
    "holm",
    "noise_floor",
    "one_at_a_time",
    "plateau",
    "power",
    "power_plan",
    "race",
    "read_tables",
    "regrets",
    "results_of",
    "seeds_needed",
    "shipped_tables",
    "without",
]
