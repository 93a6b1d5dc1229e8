"""Statistics of a study: pure functions of a table of trials. Knows no Ray and no MLflow.

Every function says in its docstring which paper it follows and which error rate it holds.
"""

from kdscale.analysis.statistics._differences import Comparison, best_mean, differences, holm
from kdscale.analysis.statistics._intervals import ConfigurationEstimate, configuration_estimates
from kdscale.analysis.statistics._noise import NoiseFloor, Spread, noise_floor
from kdscale.analysis.statistics._plateau import Plateau, plateau
from kdscale.analysis.statistics._results import Layout, Result, Results, results_of
from kdscale.analysis.statistics._shrinkage import BestValue, best_value

__all__ = [
    "BestValue",
    "Comparison",
    "ConfigurationEstimate",
    "Layout",
    "NoiseFloor",
    "Plateau",
    "Result",
    "Results",
    "Spread",
    "best_mean",
    "best_value",
    "configuration_estimates",
    "differences",
    "holm",
    "noise_floor",
    "plateau",
    "results_of",
]
