from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kdscale.losses import METHODS, Objective, Paraphraser, TermConfig, Translator, ft_factor

from .pairs import Trial, hyperparameters_for, shapes_for, trial_of


@pytest.mark.parametrize("pooled", [True, False])
def test_blind_to_positive_scale_and_zero_at_equal_factors(pooled: bool) -> None:
    f_s, f_t = torch.randn(2, 3, 4, 4, 4, dtype=torch.float64)
    assert ft_factor(f_t, f_t, pooled=pooled) == 0
    expected = ft_factor(f_s, f_t, pooled=pooled)
    torch.testing.assert_close(ft_factor(5 * f_s, 0.1 * f_t, pooled=pooled), expected)


def test_factors_may_be_compared_without_pooling() -> None:
    f_s, f_t = torch.randn(2, 3, 4, 4, 4, dtype=torch.float64)
    norm = [f.flatten(1).norm(dim=1).view(3, 1, 1, 1) for f in (f_s, f_t)]
    expected = (f_s / norm[0] - f_t / norm[1]).abs().mean()
    torch.testing.assert_close(ft_factor(f_s, f_t, pooled=False), expected)
    assert ft_factor(-f_s, f_s) == 0  # pooling squares
    assert ft_factor(-f_s, f_s, pooled=False) > 0
    assert ft_factor(f_s[:, :2], f_t) > 0
    with pytest.raises(ValueError, match="one number of channels, but got 2 and 4"):
        ft_factor(f_s[:, :2], f_t, pooled=False)


def test_the_adaptors_have_the_official_layers() -> None:
    f = torch.randn(2, 8, 4, 4)
    paraphraser, translator = Paraphraser(8, 4), Translator(6, 4)
    assert paraphraser(f).shape == f.shape
    assert paraphraser.encoder(f).shape == translator(f[:, :6]).shape == (2, 4, 4, 4)
    # Weights and biases of 6 convolutions; of 3 and their BatchNorms.
    assert len(list(paraphraser.parameters())) == len(list(translator.parameters())) == 12


def sgd(trial: Trial) -> Iterator[tuple[float, Tensor]]:
    """Yields the value and the student's gradient of each step, epochs 1, 1, 1, 2, 2, 2, ..."""
    assert isinstance(trial.term, nn.Module)
    optimiser = torch.optim.SGD(trial.term.parameters(), 0.5, momentum=0.9, weight_decay=0.01)
    stage = trial.batch.student.stages[3]
    for step in range(12):
        optimiser.zero_grad()
        stage.grad = None
        value = trial.term(replace(trial.batch, epoch=1 + step // 3))
        value.backward()
        optimiser.step()
        yield value.item(), torch.zeros_like(stage) if stage.grad is None else stage.grad


def paraphraser_of(trial: Trial) -> Paraphraser:
    assert isinstance(trial.term, nn.Module)
    return next(m for m in trial.term.modules() if isinstance(m, Paraphraser))


def test_first_the_paraphraser_learns_then_the_student() -> None:
    trial = trial_of("ft", paraphraser_epochs=2, reconstruction_weight=1.0)
    values, gradients = zip(*sgd(trial), strict=True)
    assert values[5] < values[0]
    assert all((gradient == 0).all() for gradient in gradients[:6])
    assert all((gradient != 0).any() for gradient in gradients[6:])


def test_the_reconstruction_error_is_a_mean_and_has_a_weight() -> None:
    trial = trial_of("ft", reconstruction_weight=0.25)
    f_t = trial.batch.teacher.stages[3]
    error = (paraphraser_of(trial)(f_t) - f_t).square().mean()
    torch.testing.assert_close(trial.term(trial.batch), 0.25 * error)
    # Times the published weight, the default is the official code's 1.
    assert METHODS["ft"].weight * float(
        hyperparameters_for(METHODS["ft"])["reconstruction_weight"]
    ) == pytest.approx(1)


def test_after_the_switch_the_teachers_factor_stays_bit_for_bit() -> None:
    trial = trial_of("ft", paraphraser_epochs=2)
    f_t = trial.batch.teacher.stages[3]
    steps = sgd(trial)
    for _ in range(6):
        next(steps)
    learned = paraphraser_of(trial).encoder(f_t).detach()
    for _ in steps:  # with momentum and weight decay
        assert torch.equal(paraphraser_of(trial).encoder(f_t), learned)


def test_a_resumed_term_goes_on_with_the_learned_paraphraser() -> None:
    trial, resumed = (trial_of("ft", paraphraser_epochs=2, seed=seed) for seed in (0, 1))
    for _ in sgd(trial):
        pass
    assert isinstance(trial.term, nn.Module)
    assert isinstance(resumed.term, nn.Module)
    resumed.term.load_state_dict(trial.term.state_dict())
    late = replace(trial.batch, epoch=9)
    assert torch.equal(resumed.term(late), trial.term(late))


def test_each_half_leaves_the_others_modules_out() -> None:
    trial = trial_of("ft", paraphraser_epochs=2)
    assert trial.method.skips
    assert isinstance(trial.term, nn.Module)
    for epoch, half in ((2, "paraphrasers"), (3, "translators")):
        trial.term.zero_grad(set_to_none=True)
        trial.term(replace(trial.batch, epoch=epoch)).backward()
        for name, parameter in trial.term.named_parameters():
            assert (parameter.grad is not None) == name.startswith(half)


def test_a_study_can_pretrain_the_paraphraser_before_the_cross_entropy() -> None:
    trial = trial_of("ft", dtype=torch.float32)
    config = TermConfig("ft", "ft", hyperparameters={"paraphraser_epochs": 2})
    objective = Objective(1.0, 0.0, [config], trial.shapes, seed=0, ce_start_epoch=3)
    logits = trial.batch.student.logits
    for epoch, moves in ((2, False), (3, True)):
        objective.start_epoch(epoch, 9)
        found = objective(trial.batch.student, trial.batch.teacher, trial.batch.target)
        (gradient,) = torch.autograd.grad(found["loss"], logits)
        assert bool((gradient != 0).any()) is moves


def test_a_factor_without_channels_is_refused() -> None:
    method = METHODS["ft"]
    reason = method.refuse(shapes_for(method), hyperparameters_for(method, k=0.1))
    assert reason == "ft needs a factor of at least 1 channel, but k x channels is 0.1 x 8"
