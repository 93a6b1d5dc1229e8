"""Importance measures: how much of what is seen each hyperparameter explains.

Each takes hyperparameters in the unit cube and scores, larger being better, and returns one number
a hyperparameter (`fanova` and `gp_sobol` also one a pair). None says how sure it is; `effects`
does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from kdscale.analysis.statistics._fanova import fanova
from kdscale.analysis.statistics._gp_sobol import gp_sobol
from kdscale.analysis.statistics._results import Array

Measure = Callable[[Array, Array], Array]

_TOP = 0.25
_MOST_TRIALS = 200


def ped_anova(x: Array, y: Array) -> Array:
    """Returns how much each hyperparameter tells the best quarter from the rest.

    Source: Watanabe et al., IJCAI 2023, arXiv 2304.10255, through Optuna, not normalised: where
    Optuna would return 1 / n for each of n hyperparameters without importance, this is 0. Of more
    than 200 scores, 200 evenly spaced ones are used.
    """
    from optuna.importance import PedAnovaImportanceEvaluator

    return _optuna(PedAnovaImportanceEvaluator(target_quantile=_TOP), x, y)


def delta(x: Array, y: Array) -> Array:
    """Returns Borgonovo's delta: how far knowing each one moves the distribution of scores.

    Source: Borgonovo, Reliability Engineering & System Safety 92 (2007); Plischke, Borgonovo and
    Smith, EJOR 226 (2013), through SALib.
    """
    from SALib.analyze.delta import calc_delta

    if np.ptp(y) == 0.0:
        return np.zeros(x.shape[1])
    n = len(y)
    slices = min(math.ceil(n ** (2.0 / (7.0 + math.tanh((1500.0 - n) / 500.0)))), 48)
    grid = np.linspace(y.min(), y.max(), 100)
    with _quiet():
        found = [calc_delta(y, grid, column, np.linspace(0, n, slices + 1)) for column in x.T]
    return _finite(found)


def pawn(x: Array, y: Array) -> Array:
    """Returns the median Kolmogorov-Smirnov distance of scores in slices of each one.

    Source: Pianosi and Wagener, Environmental Modelling & Software 108 (2018), through SALib.
    """
    from SALib.analyze import pawn as salib

    # Powers of 2: of other numbers SALib sums steps to a quantile above 1.
    slices = 2 if len(y) < 40 else 4 if len(y) < 120 else 8
    with _quiet():
        found = salib.analyze(_problem(x), x, y, S=slices, seed=1)
    return _finite(found["median"])


def rbd_fast(x: Array, y: Array) -> Array:
    """Returns each one's first-order share of variance by Fourier analysis of the ordered scores.

    Source: Tarantola, Gatelli and Mara, Reliability Engineering & System Safety 91 (2006), with
    the correction of Tissot and Prieur (2012), through SALib.
    """
    from SALib.analyze import rbd_fast as salib

    harmonics = int(np.clip(len(y) // 8, 1, 6))
    with _quiet():
        found = salib.analyze(_problem(x), x, y, M=harmonics, num_resamples=2, seed=1)
    return _finite(found["S1"])


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "ped_anova": ped_anova,
        "fanova": fanova,
        "delta": delta,
        "pawn": pawn,
        "rbd_fast": rbd_fast,
        "sobol": gp_sobol,
    }
)
"""Name -> measure. ``fanova`` gives main effects and pairs, ``sobol`` first-order, total and
pairwise indices, in this order."""


def _optuna(evaluator: Any, x: Array, y: Array) -> Array:
    import optuna

    if np.ptp(y) == 0.0:
        return np.zeros(x.shape[1])
    if len(y) > _MOST_TRIALS:
        kept = np.linspace(0, len(y) - 1, _MOST_TRIALS).round().astype(int)
        x, y = x[kept], y[kept]
    names = [f"x{column:03d}" for column in range(x.shape[1])]
    unit: optuna.distributions.BaseDistribution = optuna.distributions.FloatDistribution(0.0, 1.0)
    space = dict.fromkeys(names, unit)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="minimize")
        study.add_trials(
            [
                optuna.create_trial(
                    params=dict(zip(names, row, strict=True)), distributions=space, value=-score
                )
                for row, score in zip(x.tolist(), y.tolist(), strict=True)
            ]
        )
        with _quiet():
            found = optuna.importance.get_param_importances(
                study, evaluator=evaluator, params=names, normalize=False
            )
    finally:
        optuna.logging.set_verbosity(verbosity)
    return _finite([found[name] for name in names])


def _problem(x: Array) -> dict[str, Any]:
    names = [f"x{column}" for column in range(x.shape[1])]
    return {"num_vars": len(names), "names": names, "bounds": [[0.0, 1.0]] * len(names)}


def _finite(values: Any) -> Array:
    numbers = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, 0.0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps a library's warnings and its changes of global state from the caller."""
    state, form = np.random.get_state(), warnings.formatwarning  # noqa: NPY002
    try:
        # Recorded, not filtered: SALib sets filters of its own.
        with warnings.catch_warnings(record=True), np.errstate(all="ignore"):
            yield
    finally:
        warnings.formatwarning = form
        np.random.set_state(state)  # noqa: NPY002
