import math

import pytest
import torch
from torch import nn

from kdscale.losses import VIDRegressor, vid

from .pairs import trial_of


def log_scale_of(variance: float, channels: int = 3) -> torch.Tensor:
    return torch.full((channels,), math.log(math.expm1(variance - 1e-5)), dtype=torch.float64)


def test_it_is_the_gaussian_likelihood_without_its_constant() -> None:
    prediction, f_t = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    expected = -torch.distributions.Normal(prediction, 2.5**0.5).log_prob(f_t).mean()
    got = vid(prediction, f_t, log_scale_of(2.5))
    torch.testing.assert_close(got, expected - 0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize("variance", [0.2, 1.0, 5.0])
def test_at_an_exact_prediction_the_log_variance_is_left(variance: float) -> None:
    f_t = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert vid(f_t, f_t, log_scale_of(variance)).item() == pytest.approx(math.log(variance) / 2)


def test_the_best_variance_is_the_mean_squared_error() -> None:
    error = torch.randn(4, 3, 4, 4, dtype=torch.float64)
    variance = error.square().mean((0, 2, 3))
    log_scale = (variance - 1e-5).expm1().log().requires_grad_()
    vid(error, torch.zeros_like(error), log_scale).backward()
    assert log_scale.grad is not None
    assert log_scale.grad.abs().max() < 1e-12


def test_regressors_start_at_the_variance_asked_for() -> None:
    trial = trial_of("vid", init_var=2.0)
    assert isinstance(trial.term, nn.Module)
    scales = [m.log_scale for m in trial.term.modules() if isinstance(m, VIDRegressor)]
    assert [len(scale) for scale in scales] == [6, 7, 8]
    for scale in scales:
        torch.testing.assert_close(
            nn.functional.softplus(scale), torch.full_like(scale, 2.0 - 1e-5), rtol=1e-6, atol=0
        )


def test_the_variance_is_trained_unlike_in_mdistiller() -> None:
    trial = trial_of("vid")
    assert isinstance(trial.term, nn.Module)
    before = {key: value.clone() for key, value in trial.term.state_dict().items()}
    optimiser = torch.optim.SGD(trial.term.parameters(), lr=0.1)
    trial.term(trial.batch).backward()
    optimiser.step()
    scales = [key for key in before if key.endswith("log_scale")]
    assert len(scales) == 3
    for key in scales:
        assert (trial.term.state_dict()[key] != before[key]).all()


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must both be"):
        vid(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2), torch.zeros(3))
