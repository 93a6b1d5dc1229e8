"""Sobol indices of a Gaussian process that was fitted to the scores."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from scipy.special import erf

from kdscale.analysis.statistics._gp import fit_process
from kdscale.analysis.statistics._results import Array

_NODES = 24


def gp_sobol(x: Array, y: Array) -> Array:
    """Returns shares of the scores' variance: first-order, total, then one a pair.

    The process has a squared-exponential kernel with a length scale for each hyperparameter, and
    noise. The integrals of its mean over the unit cube have closed forms, so nothing is sampled.
    Shares are of the variance over the cube, noise included: where all is noise they are near 0.

    Args:
        x: [n, d] Hyperparameters in the unit cube.
        y: [n] Scores. Of more than 120, 120 evenly spaced ones are used.

    Returns:
        [d + d + d (d - 1) / 2] First-order indices, total indices, and interactions of the pairs
        (0, 1), (0, 2), …, (d - 2, d - 1).

    Source: Oakley and O'Hagan, JRSS B 66 (2004), section 3; Marrel et al., Reliability Engineering
    & System Safety 94 (2009), eq. 11 (indices of the predictor alone).
    """
    d = x.shape[1]
    pairs = list(combinations(range(d), 2))
    if np.ptp(y) == 0.0 or len(y) < d + 3:
        return np.zeros(2 * d + len(pairs))
    process = fit_process(x, y)
    x, weights, scales = process.x, process.weights, process.scales
    # means[k][i]: kernel k of point i, integrated over x_k; squares[k][i, j]: product of two.
    means = np.array([_integral(x[:, k], scales[k]) for k in range(d)])
    squares = np.array([_square(x[:, k], scales[k]) for k in range(d)])
    flat = np.array([np.outer(mean, mean) for mean in means])

    def variance(kept: tuple[int, ...]) -> float:
        """Returns the variance of the mean over all hyperparameters but those kept."""
        parts = [squares[k] if k in kept else flat[k] for k in range(d)]
        return float(weights @ np.prod(parts, axis=0) @ weights) - constant**2

    constant = float(weights @ np.prod(means, axis=0))
    whole = variance(tuple(range(d)))
    first = [variance((k,)) for k in range(d)]
    total = [whole - variance(tuple(other for other in range(d) if other != k)) for k in range(d)]
    both = [variance((j, k)) - first[j] - first[k] for j, k in pairs]
    all_of_it = max(0.0, whole) + process.noise
    return np.array([max(0.0, part) / all_of_it for part in (*first, *total, *both)])


def _integral(at: Array, scale: float) -> Array:
    """Returns the integral over [0, 1] of exp(-(x - at)^2 / (2 scale^2))."""
    root = math.sqrt(2.0) * scale
    return np.asarray(scale * math.sqrt(math.pi / 2.0) * (erf((1.0 - at) / root) + erf(at / root)))


def _square(at: Array, scale: float) -> Array:
    nodes, width = np.polynomial.legendre.leggauss(_NODES)
    values = np.exp(-0.5 * (((nodes[:, None] + 1.0) / 2.0 - at[None, :]) / scale) ** 2)
    return np.asarray(values.T @ (values * (width / 2.0)[:, None]))
