"""The fast forms against the straightforward ones that `scripts/bench_losses.py` times."""

import pytest
import torch
from plain import FORMS, Forms

from kdscale.losses import METHODS

WIDTHS = (12, 16)
BATCH_SIZE = 8

each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.method}-{form.axis}")


@each_form
@pytest.mark.parametrize("width", WIDTHS)
def test_value_and_gradient_are_the_straightforward_ones(form: Forms, width: int) -> None:
    results = []
    for function in (form.ours, form.plain):
        inputs = form.inputs(width, batch_size=BATCH_SIZE, dtype=torch.float64, seed=width)
        inputs[0].requires_grad_()
        value = function(*inputs)
        results.append((value.detach(), *torch.autograd.grad(value, inputs[0])))
    (value, gradient), expected = results
    torch.testing.assert_close(value, expected[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gradient, expected[1], rtol=1e-6, atol=1e-10)
    assert gradient.abs().max() > 0


@each_form
def test_widths_are_those_of_an_axis(form: Forms) -> None:
    assert form.method in METHODS
    assert form.axis in ("C", "D", "channels")
    assert form.widths == tuple(sorted(set(form.widths)))


def test_every_method_has_a_straightforward_form() -> None:
    assert {form.method for form in FORMS} == set(METHODS)
