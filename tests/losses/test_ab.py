import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdscale.losses import METHODS, PairShapes, SizeRegressor, ab
from kdscale.outputs import OutputShapes

from .pairs import hyperparameters_for, trial_of


def one_neuron(s: float, t: float, margin: float = 1.0) -> float:
    """1000 / 3 of the loss, for one neuron of one image."""
    f_s, f_t = (torch.full((1, 1, 1, 1), x, dtype=torch.float64) for x in (s, t))
    return ab(f_s, f_t, margin=margin).item() / 3 * 1000


@pytest.mark.parametrize(
    ("s", "t", "expected"),
    [
        *((-1.0, -0.1, 0), (-0.5, -9.0, 0.25), (2.0, 0.0, 9)),
        *((1.0, 0.1, 0), (0.5, 9.0, 0.25), (-2.0, 1e-9, 9)),
    ],
)
def test_only_the_teachers_sign_counts(s: float, t: float, expected: float) -> None:
    assert one_neuron(s, t) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), margin=st.floats(0, 3))
def test_a_sum_over_the_map_and_zero_beyond_the_margin(seed: int, margin: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    f_s, f_t = torch.randn(2, 3, 4, 2, 2, generator=generator, dtype=torch.float64)
    neurons = [
        one_neuron(s, t, margin)
        for s, t in zip(f_s.flatten().tolist(), f_t.flatten().tolist(), strict=True)
    ]
    assert ab(f_s, f_t, margin=margin).item() == pytest.approx(0.003 * sum(neurons) / 3)
    beyond = torch.where(f_t > 0, margin + f_s.abs(), -margin - f_s.abs())
    assert ab(beyond, f_t, margin=margin).item() == pytest.approx(0, abs=1e-20)


def test_earlier_stages_weigh_half() -> None:
    trial = trial_of("ab")
    assert isinstance(trial.term, nn.Module)
    student, teacher = trial.batch.student.preactivations, trial.batch.teacher.preactivations
    expected = sum(
        2.0 ** (k - 3) * ab(trial.term.connectors[k - 1](student[k]), teacher[k]) for k in (1, 2, 3)
    )
    torch.testing.assert_close(trial.term(trial.batch), expected)


def test_equal_shapes_need_no_connector() -> None:
    shapes = ((4, 8, 8), (6, 4, 4))
    student, teacher = (
        OutputShapes(10, 6, stages=stages, preactivations=True)
        for stages in (shapes, (shapes[0], (6, 8, 8)))
    )
    method = METHODS["ab"]
    term = method.build(PairShapes(student, teacher, 8), hyperparameters_for(method))
    assert isinstance(term, nn.Module)
    kinds = [type(connector) for connector in term.connectors]
    assert kinds == [nn.Identity, SizeRegressor]


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must both be"):
        ab(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 1, 1))
