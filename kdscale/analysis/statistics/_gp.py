"""The Gaussian process behind Sobol indices and response surfaces."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve

from kdscale.analysis.statistics._results import Array

MOST_POINTS = 120
"""Points that a process is fitted to at most: time grows with their cube."""

_FEWEST_SCALE, _MOST_SCALE = 0.1, 10.0


@dataclass(frozen=True)
class Process:
    """A Gaussian process with squared-exponential kernel and noise, fitted to scores.

    Attributes:
        x: [n, d] Its points in the unit cube.
        weights: [n] Weights of the kernels at the points, amplitude included.
        scales: [d] Length scales.
        amplitude: Variance of the process, in units of the scores' variance.
        noise: Variance of the noise, in the same units.
        factor: [n, n] Lower Cholesky factor of the points' covariance, noise included.
        centre: Mean of the scores.
        unit: Standard deviation of the scores.
    """

    x: Array
    weights: Array
    scales: Array
    amplitude: float
    noise: float
    factor: Array
    centre: float
    unit: float

    def averaged(self, columns: tuple[int, ...], grid: Array) -> tuple[Array, Array]:
        """Returns mean and standard deviation of the surface, other hyperparameters averaged out.

        The average is over the points' own values of the others, so nothing is asked of corners
        where no point lies.

        Args:
            columns: The hyperparameters that the grid gives.
            grid: [m, columns] Where.

        Source: Friedman, Annals of Statistics 29 (2001), section 8.2, partial dependence; its
        variance under the process is exact, since an average of a process is normal.
        """
        others = [k for k in range(self.x.shape[1]) if k not in columns]
        rest = _kernel(self.x[:, others], self.x[:, others], self.scales[others])
        held = _kernel(grid, self.x[:, list(columns)], self.scales[list(columns)])
        to_points = held * rest.mean(axis=0)
        mean = to_points @ self.weights
        covariance = self.amplitude * to_points
        known = np.einsum("ij,ji->i", covariance, cho_solve((self.factor, True), covariance.T))
        variance = np.maximum(self.amplitude * float(rest.mean()) - known, 0.0)
        return self.centre + self.unit * mean, self.unit * np.sqrt(variance)


def fit_process(x: Array, y: Array) -> Process:
    """Returns a process fitted by maximum likelihood.

    Args:
        x: [n, d] Hyperparameters in the unit cube.
        y: [n] Scores, not all equal. Of more than 120, 120 evenly spaced ones are used.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), ch. 2 and 5.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    if len(y) > MOST_POINTS:
        kept = np.linspace(0, len(y) - 1, MOST_POINTS).round().astype(int)
        x, y = x[kept], y[kept]
    centre, unit = float(y.mean()), float(y.std())
    amplitude = ConstantKernel(0.5, (1e-4, 1e2))
    scales = RBF(np.full(x.shape[1], 0.5), (_FEWEST_SCALE, _MOST_SCALE))
    process = GaussianProcessRegressor(amplitude * scales + WhiteKernel(0.5, (1e-4, 1e1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound is a flat hyperparameter
        process.fit(x, (y - centre) / unit)
    product = process.kernel_.k1
    return Process(
        x=x,
        weights=np.asarray(product.k1.constant_value * process.alpha_.ravel()),
        scales=np.atleast_1d(product.k2.length_scale) * np.ones(x.shape[1]),
        amplitude=float(product.k1.constant_value),
        noise=float(process.kernel_.k2.noise_level),
        factor=process.L_,
        centre=centre,
        unit=unit,
    )


def _kernel(first: Array, second: Array, scales: Array) -> Array:
    gaps = (first[:, None, :] - second[None, :, :]) / scales
    return np.asarray(np.exp(-0.5 * (gaps**2).sum(axis=2)))
