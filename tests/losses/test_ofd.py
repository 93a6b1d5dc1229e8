from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdscale.losses import METHODS, Batch, PairShapes, ofd, ofd_margin
from kdscale.outputs import Affine, Outputs, OutputShapes

from .pairs import hyperparameters_for, shapes_for, trial_of


@settings(max_examples=30, deadline=None)
@given(mean=st.floats(-3, 2), std=st.floats(0.7, 3))
def test_the_margin_is_the_mean_of_the_values_below_zero(mean: float, std: float) -> None:
    """By a sum over a fine grid in place of the closed form."""
    x = torch.linspace(mean - 12 * std, 0, 200_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((x - mean) / std) ** 2)
    expected = torch.trapezoid(x * density, x) / torch.trapezoid(density, x)
    for sign in (1, -1):
        got = ofd_margin(torch.tensor([sign * std]).double(), torch.tensor([mean]).double())
        torch.testing.assert_close(got[0], expected, rtol=1e-6, atol=1e-6)


def test_the_margin_where_almost_nothing_is_below_zero() -> None:
    weight = torch.tensor([0.5, -0.5, 1.0, 1.0], dtype=torch.float64)
    bias = torch.tensor([2.0, 50.0, 3.0, 3.2], dtype=torch.float64)
    margin = ofd_margin(weight, bias)
    assert margin[:2].tolist() == [-1.5, -1.5]
    # Φ(-3) is above 0.001, Φ(-3.2) below.
    assert -1 < margin[2] < 0
    assert margin[3] == -3


def test_the_margin_at_weight_zero_is_the_limit() -> None:
    bias = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 2.0], dtype=torch.float64)
    at_zero = ofd_margin(torch.zeros_like(bias), bias)
    assert at_zero.tolist() == [-2.0, -1e-3, 0.0, 0.0, 0.0]
    near = ofd_margin(torch.full_like(bias, 1e-9), bias)
    torch.testing.assert_close(near, at_zero, rtol=1e-7, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(weight=st.floats(-1e4, 1e4, width=32), bias=st.floats(-1e4, 1e4, width=32))
def test_the_margin_is_finite_and_never_positive(weight: float, bias: float) -> None:
    margin = ofd_margin(torch.tensor([weight]), torch.tensor([bias]))
    assert torch.isfinite(margin).all()
    # To float32's rounding of the mean.
    assert (margin <= 1e-6 * abs(bias)).all()


@pytest.mark.parametrize(
    ("s", "t", "expected"),
    [
        *((3.0, 1.0, 4), (-3.0, 1.0, 16)),  # on: matched on both sides
        *((0.0, -0.2, 0.04), (-0.3, -0.2, 0)),  # off, above the margin: only from above
        *((0.0, -2.0, 0.25), (-0.6, -2.0, 0), (-0.5, -2.0, 0)),  # off: down to the margin
    ],
)
def test_one_neuron(s: float, t: float, expected: float) -> None:
    f_s, f_t = (torch.full((1, 1, 1, 1), x, dtype=torch.float64) for x in (s, t))
    margin = torch.tensor([-0.5], dtype=torch.float64)
    assert ofd(f_s, f_t, margin).item() == pytest.approx(expected)


def test_zero_at_student_equal_teacher_above_the_margin() -> None:
    f_t = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert ofd(f_t, f_t, f_t.amin((0, 2, 3))) == 0
    # Below the margin it is zero too: the student need not be lower.
    assert ofd(f_t, f_t, torch.zeros(3, dtype=torch.float64)) == 0


def test_earlier_stages_weigh_half_and_margins_come_from_the_teachers_norms() -> None:
    trial = trial_of("ofd")
    assert isinstance(trial.term, nn.Module)
    student, teacher = trial.batch.student, trial.batch.teacher
    expected = sum(
        2.0 ** (k - 3)
        * ofd(
            trial.term.connectors[k - 1](student.preactivations[k]),
            teacher.preactivations[k],
            ofd_margin(*teacher.norms[k]),
        )
        for k in (1, 2, 3)
    )
    torch.testing.assert_close(trial.term(trial.batch), expected)


@pytest.mark.parametrize("grid", [4, 2, 8])
def test_the_teachers_map_is_pooled_to_the_students_grid(grid: int) -> None:
    bare = OutputShapes(10, 6, preactivations=True, norms=True)
    student = replace(bare, stages=((3, grid, grid),))
    teacher = replace(bare, stages=((5, 4, 4),))
    method = METHODS["ofd"]
    shapes = PairShapes(student, teacher, 2)
    assert method.refuse(shapes, hyperparameters_for(method)) == ""
    term = method.build(shapes, hyperparameters_for(method))
    assert isinstance(term, nn.Module)
    f_s, f_t = torch.randn(2, 3, grid, grid), torch.randn(2, 5, 4, 4)
    norm = Affine(torch.ones(5), torch.zeros(5))
    batch = Batch(
        Outputs(torch.zeros(2, 10), preactivations={0: f_s}),
        Outputs(torch.zeros(2, 10), preactivations={0: f_t}, norms={0: norm}),
        torch.zeros(2, dtype=torch.int64),
    )
    pooled = F.adaptive_avg_pool2d(f_t, grid)
    expected = ofd(term.connectors[0](f_s), pooled, ofd_margin(*norm))
    torch.testing.assert_close(term(batch), expected)


def test_only_the_teacher_needs_a_batchnorm_before_the_relu() -> None:
    method = METHODS["ofd"]
    shapes = shapes_for(method)
    without = replace(shapes, student=replace(shapes.student, norms=False))
    assert method.refuse(without, hyperparameters_for(method)) == ""
    without = replace(shapes, teacher=replace(shapes.teacher, norms=False))
    reason = method.refuse(without, hyperparameters_for(method))
    assert reason.startswith("the teacher must have a BatchNorm before")


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must both be"):
        ofd(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2), torch.zeros(3))
