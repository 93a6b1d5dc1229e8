from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.search._sections import MetricSpec
from kdscale.search._value import trial_value


def value(curve: Sequence[float], **metric: object) -> float | None:
    spec = MetricSpec.model_validate({"name": "val_loss", **metric})
    return trial_value(spec, [{"epoch": e, "val_loss": v} for e, v in enumerate(curve, start=1)])


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        ({}, 2.0),
        ({"mode": "last"}, 2.0),
        ({"mode": "best"}, 4.0),
        ({"mode": "best", "goal": "minimize"}, 1.0),
        ({"mode": "mean_last_n", "n": 2}, 3.0),
        ({"mode": "mean_last_n", "n": 1}, 2.0),
        ({"mode": "mean_last_n", "n": 9}, 2.5),  # a pruned trial has fewer epochs than n
    ],
)
def test_a_trials_value_is_its_metrics_mode(metric: dict[str, object], wanted: float) -> None:
    assert value([1.0, 3.0, 4.0, 2.0], **metric) == wanted


@pytest.mark.parametrize("mode", ["last", "best", "mean_last_n"])
def test_without_an_epoch_there_is_no_value(mode: str) -> None:
    assert value([], mode=mode, n=3 if mode == "mean_last_n" else None) is None


def test_another_metrics_values_do_not_count() -> None:
    spec = MetricSpec(name="val_accuracy", mode="best")
    history = [{"val_accuracy": 1.0, "val_loss": 9.0}, {"val_accuracy": 0.5, "val_loss": 99.0}]
    assert trial_value(spec, history) == 1.0


@given(curve=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), n=st.integers(1, 25))
def test_every_mode_lies_within_the_curve(curve: list[float], n: int) -> None:
    best = value(curve, mode="best")
    least = value(curve, mode="best", goal="minimize")
    mean = value(curve, mode="mean_last_n", n=n)
    assert best == max(curve)
    assert least == min(curve)
    assert mean is not None
    assert min(curve) - 1e-6 <= mean <= max(curve) + 1e-6
