import pytest
import torch

from kdscale.losses import fitnet

from .pairs import trial_of


def test_zero_at_equal_maps_and_a_mean_over_elements() -> None:
    f_t = torch.randn(2, 3, 4, 4)
    assert fitnet(f_t, f_t) == 0
    torch.testing.assert_close(fitnet(f_t + 2, f_t), torch.tensor(4.0))


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must both be \[B, C, H, W\], but got \[2, 3, 4, 4\]"):
        fitnet(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))


def test_the_regressor_learns_the_hint() -> None:
    trial = trial_of("fitnet")
    assert isinstance(trial.term, torch.nn.Module)
    optimiser = torch.optim.SGD(trial.term.parameters(), lr=0.1)
    values = []
    for _ in range(20):
        optimiser.zero_grad()
        value = trial.term(trial.batch)
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.9 * values[0]


def test_stages_are_summed() -> None:
    first, both = (trial_of("fitnet", stages=stages) for stages in ("1", "1 3"))
    assert isinstance(both.term, torch.nn.Module)
    assert len(both.term.adaptors) == 2
    assert both.term(both.batch) > first.term(first.batch)
