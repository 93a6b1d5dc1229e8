from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from kdscale.analysis.statistics import Result, Results, Surrogate
from kdscale.analysis.statistics._gp import fit_process


def study(
    surface: Callable[[np.ndarray], float], n: int = 60, goal: str = "maximize", sd: float = 0.05
) -> Results:
    draw = np.random.default_rng(0)
    rows = []
    for number in range(n):
        point = draw.random(3)
        parameters = {"alpha": point[0], "beta": point[1], "kind": "abc"[int(3 * point[2])]}
        value = float(surface(point) + draw.normal(0.0, sd))
        rows.append(Result(number, 0, parameters, value))
    return Results(tuple(rows), goal, ("alpha", "beta", "kind"))  # type: ignore[arg-type]


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_a_line_follows_the_surface(goal: str) -> None:
    line = Surrogate(study(lambda x: 70.0 + 3.0 * x[0], goal=goal)).line("alpha")
    values = np.array(line.values)
    assert (np.diff(values) > 0.0).all()
    np.testing.assert_allclose(line.mean, 70.0 + 3.0 * values, atol=0.25)
    assert max(line.sd) < 0.3


def test_a_surface_has_rows_and_columns_where_they_belong() -> None:
    surface = Surrogate(study(lambda x: 2.0 * x[0])).surface("alpha", "kind")
    assert (surface.rows, len(surface.columns)) == (("a", "b", "c"), 25)
    assert surface.mean.shape == surface.sd.shape == (3, 25)
    assert (surface.mean[:, -1] - surface.mean[:, 0] > 1.0).all()
    assert np.ptp(surface.mean, axis=0).max() < 0.3


def test_of_noise_the_band_holds_a_level_line() -> None:
    line = Surrogate(study(lambda _: 70.0, sd=1.0)).line("alpha")
    mean, sd = np.array(line.mean), np.array(line.sd)
    assert (np.abs(mean - mean.mean()) <= 1.96 * sd + 0.3).all()


def test_few_or_equal_scores_are_not_known() -> None:
    assert not Surrogate(study(lambda x: x[0], n=7)).known
    assert not Surrogate(study(lambda _: 70.0, sd=0.0)).known
    assert not Surrogate(Results((), "maximize", ("alpha",))).known
    assert Surrogate(study(lambda x: x[0], n=8)).known


def test_the_average_is_scikit_learns_averaged_by_hand() -> None:
    draw = np.random.default_rng(3)
    x = draw.random((20, 2))
    y = np.sin(3.0 * x[:, 0]) + x[:, 1] + draw.normal(0.0, 0.1, 20)
    process = fit_process(x, y)
    kernel = ConstantKernel(process.amplitude, "fixed") * RBF(process.scales, "fixed")
    noise = process.factor @ process.factor.T - kernel(x)
    theirs = GaussianProcessRegressor(
        kernel + WhiteKernel(float(noise[0, 0]), "fixed"), optimizer=None, alpha=0.0
    ).fit(x, (y - process.centre) / process.unit)
    grid = np.array([[0.2], [0.8]])
    mean, sd = process.averaged((0,), grid)
    for place, at in enumerate(grid[:, 0]):
        points = np.column_stack([np.full(20, at), x[:, 1]])
        expected, covariance = theirs.predict(points, return_cov=True)
        covariance = covariance - float(noise[0, 0]) * np.eye(20)  # of the surface, not of a run
        assert mean[place] == pytest.approx(process.centre + process.unit * expected.mean())
        assert sd[place] == pytest.approx(process.unit * np.sqrt(covariance.mean()), rel=1e-4)
