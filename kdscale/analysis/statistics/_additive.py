"""The model behind paired comparisons: value = configuration + seed + residual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdscale.analysis.statistics._results import Array, Layout


@dataclass(frozen=True)
class AdditiveFit:
    """Least squares of the two-way layout without interaction, cells may be missing.

    Attributes:
        effects: [configurations] Each configuration's mean with the seeds' effects taken out.
        covariance: [configurations, configurations] Covariance of the effects in units of the
            residual variance; only differences of effects of one component mean anything.
        residual_ss: Sum of squares that configuration and seed leave.
        residual_df: Its degrees of freedom.
        seed_ss: Sum of squares of the seeds after the configurations.
        seed_df: Its degrees of freedom.
        component: [configurations] Two configurations can be compared where these are equal:
            a chain of shared seeds leads from one to the other.
    """

    effects: Array
    covariance: Array
    residual_ss: float
    residual_df: int
    seed_ss: float
    seed_df: int
    component: tuple[int, ...]

    @property
    def residual_variance(self) -> float:
        """Mean square of the residuals; NaN without degrees of freedom."""
        return self.residual_ss / self.residual_df if self.residual_df else float("nan")

    def difference_variance(self, first: int, second: int) -> float:
        """Returns the variance of effect ``first`` minus ``second`` in units of the residual's."""
        c = self.covariance
        return float(c[first, first] + c[second, second] - 2.0 * c[first, second])


def additive_fit(layout: Layout) -> AdditiveFit:
    """Returns the least-squares fit of configuration and seed effects.

    Args:
        layout: At least one value.

    Source: Searle, Linear Models for Unbalanced Data (1987), ch. 4 and 7: R(seed | configuration)
    is the seeds' sum of squares after the configurations.
    """
    filled = ~np.isnan(layout.values)
    configurations, seeds = layout.values.shape
    row, column = np.nonzero(filled)
    y = layout.values[row, column]
    centre = float(y.mean())
    design = np.zeros((len(y), configurations + seeds))
    design[np.arange(len(y)), row] = 1.0
    design[np.arange(len(y)), configurations + column] = 1.0
    inverse = np.linalg.pinv(design.T @ design, hermitian=True)
    solution = inverse @ (design.T @ (y - centre))
    rounding = 1e-20 * len(y) * (1.0 + centre * centre)  # a sum of squares below it is none
    residual_ss = float(((y - centre - design @ solution) ** 2).sum())
    residual_ss = residual_ss if residual_ss > rounding else 0.0
    within_ss = float(((y - layout.means[row]) ** 2).sum())
    component = _components(filled)
    rank = configurations + seeds - len(set(component))
    return AdditiveFit(
        effects=centre + solution[:configurations] + solution[configurations:].mean(),
        covariance=inverse[:configurations, :configurations],
        residual_ss=residual_ss,
        residual_df=len(y) - rank,
        seed_ss=within_ss - residual_ss if within_ss - residual_ss > rounding else 0.0,
        seed_df=rank - configurations,
        component=component,
    )


def _components(filled: np.ndarray) -> tuple[int, ...]:
    """Returns a label for each row: equal where a chain of shared columns connects them."""
    label = np.arange(len(filled))
    for column in filled.T:
        touched = np.unique(label[column])
        label[np.isin(label, touched)] = touched.min(initial=len(label))
    return tuple(int(number) for number in label)
