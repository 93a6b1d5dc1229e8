"""Functional analysis of variance of a random forest, with all marginals at once."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from kdscale.analysis.statistics._results import Array

_TREES = 16
_DEPTH = 64
_MOST_POINTS = 200


def fanova(x: Array, y: Array) -> Array:
    """Returns shares of a random forest's variance: one a hyperparameter, then one a pair.

    The single shares are those of Optuna's `FanovaImportanceEvaluator` with the same forest, not
    normalised; it walks the trees once a split, which takes minutes where a bootstrap needs
    seconds, and has no pairs.

    Args:
        x: [n, d] Hyperparameters in the unit cube.
        y: [n] Scores. Of more than 200, 200 evenly spaced ones are used.

    Returns:
        [d + d (d - 1) / 2] Main effects, and interactions of the pairs (0, 1), (0, 2), …,
        (d - 2, d - 1).

    Source: Hutter, Hoos and Leyton-Brown, ICML 2014, section 3 and algorithm 1.
    """
    from sklearn.ensemble import RandomForestRegressor

    d = x.shape[1]
    found = np.zeros(d + d * (d - 1) // 2)
    if np.ptp(y) == 0.0:
        return found
    if len(y) > _MOST_POINTS:
        kept = np.linspace(0, len(y) - 1, _MOST_POINTS).round().astype(int)
        x, y = x[kept], y[kept]
    forest = RandomForestRegressor(_TREES, max_depth=_DEPTH, random_state=0).fit(x, y)
    shares = [share for one in forest.estimators_ if (share := _shares(one.tree_, d)) is not None]
    return np.asarray(np.mean(shares, axis=0)) if shares else found


def _shares(tree: Any, d: int) -> Array | None:
    """Returns one tree's shares, or None for a tree without a split."""
    low, high, value = _leaves(tree, d)
    size = (high - low).prod(axis=1)
    mean = float(size @ value)
    whole = float(size @ (value - mean) ** 2)
    if whole <= 0.0:
        return None
    widths, inside = [], []
    for k in range(d):
        cuts = np.unique(np.concatenate([low[:, k], high[:, k]]))
        middle = (cuts[1:] + cuts[:-1]) / 2.0
        widths.append(np.diff(cuts))
        inside.append((low[:, k] <= middle[:, None]) & (middle[:, None] <= high[:, k]))
    # The prediction with one or two hyperparameters held and the others averaged over the cube.
    alone = [inside[k] @ (value * size / (high - low)[:, k]) for k in range(d)]
    main = [float(widths[k] @ (alone[k] - mean) ** 2) for k in range(d)]
    both = []
    for j, k in combinations(range(d), 2):
        weight = value * size / (high - low)[:, j] / (high - low)[:, k]
        surface = (inside[j] * weight) @ inside[k].T
        variance = float(widths[j] @ (surface - mean) ** 2 @ widths[k])
        both.append(max(0.0, variance - main[j] - main[k]))
    return np.array([*main, *both]) / whole


def _leaves(tree: Any, d: int) -> tuple[Array, Array, Array]:
    """Returns the corners [leaves, d] of the leaves' boxes, and their values [leaves]."""
    low, high = np.zeros((tree.node_count, d)), np.ones((tree.node_count, d))
    for node in range(tree.node_count):  # children come after their parent
        feature = tree.feature[node]
        if feature >= 0:
            left, right = tree.children_left[node], tree.children_right[node]
            low[left], high[left] = low[node], high[node]
            low[right], high[right] = low[node], high[node]
            high[left, feature] = low[right, feature] = tree.threshold[node]
    leaf = tree.feature < 0
    return low[leaf], high[leaf], tree.value[leaf, 0, 0]
