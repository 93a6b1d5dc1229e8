import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from kdscale.losses import ctkd, ctkd_dkd, dkd, kd, reversal_strength

from .draws import draw
from .pairs import trial_of

RANGE = {"t_start": 1.0, "t_end": 20.0}
COSINE = {"lambda_min": -1.0, "lambda_max": 0.0, "lambda_epochs": 10}
T_AT_ONE = 1 + 20 / (1 + math.exp(-1))


def test_is_kd_at_the_learnt_temperature() -> None:
    z_s, z_t, y = draw(1)
    theta = torch.ones(1, dtype=torch.float64)
    value = ctkd(z_s, z_t, theta, **RANGE, lambda_=-1.0)
    torch.testing.assert_close(value, kd(z_s, z_t, temperature=T_AT_ONE))
    weights = {"alpha": 1.0, "beta": 2.0}
    value = ctkd_dkd(z_s, z_t, y, theta, **weights, **RANGE, lambda_=-1.0)
    torch.testing.assert_close(value, dkd(z_s, z_t, y, **weights, temperature=T_AT_ONE))


@pytest.mark.parametrize("lambda_", [-1.0, -0.25, 0.0])
def test_only_thetas_gradient_is_multiplied_by_lambda(lambda_: float) -> None:
    z_s, z_t, _ = draw(2)
    z_s.requires_grad_()
    theta = torch.ones(1, dtype=torch.float64, requires_grad=True)
    gradients = [
        torch.autograd.grad(ctkd(z_s, z_t, theta, **RANGE, lambda_=factor), (z_s, theta))
        for factor in (1.0, lambda_)
    ]
    torch.testing.assert_close(gradients[1][0], gradients[0][0], rtol=0, atol=0)
    torch.testing.assert_close(gradients[1][1], lambda_ * gradients[0][1])


def test_with_lambda_one_the_gradient_is_the_values() -> None:
    z_s, z_t, _ = draw(3)
    theta = torch.full((1,), 0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda parameter: ctkd(z_s, z_t, parameter, **RANGE, lambda_=1.0), theta
    )


def test_reversal_strength_falls_along_a_cosine_and_stays() -> None:
    strengths = [reversal_strength(epoch, **COSINE) for epoch in range(1, 241)]
    assert strengths[0] == pytest.approx((math.cos(math.pi / 10) - 1) / 2)
    assert strengths[4] == pytest.approx(-0.5)
    assert strengths[9:] == [-1.0] * 231
    assert strengths[:10] == sorted(strengths[:10], reverse=True)


def test_theta_is_learnt_against_the_student_and_saved() -> None:
    trial = trial_of("ctkd")
    assert isinstance(trial.term, nn.Module)
    assert {name: value.item() for name, value in trial.term.state_dict().items()} == {"theta": 1}
    batch = replace(trial.batch, epoch=240)
    optimiser = torch.optim.SGD(trial.term.parameters(), lr=1e-3)
    before = trial.term(batch)
    before.backward()
    optimiser.step()
    assert trial.term(batch) > before


def test_base_dkd() -> None:
    trial = trial_of("ctkd", base="dkd")
    batch = trial.batch
    expected = dkd(
        batch.student.logits,
        batch.teacher.logits,
        batch.target,
        alpha=1.0,
        beta=2.0,
        temperature=T_AT_ONE,
    )
    torch.testing.assert_close(trial.term(batch), expected)
