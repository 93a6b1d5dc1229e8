from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdscale.losses import METHODS, Batch, Diffusion, PairShapes, ddim_denoise, kd
from kdscale.losses._diffkd_denoiser import TRAIN_STEPS, signal_kept
from kdscale.outputs import OutputShapes
from kdscale.records import Value

from .pairs import CNN, WIDER, parts_of, trial_of, with_parts


def refusal(shapes: PairShapes, **given: Value) -> str:
    return METHODS["diffkd"].refuse(shapes, METHODS["diffkd"].complete(given))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_noise_schedule_is_that_of_ddpm() -> None:
    kept = signal_kept()
    betas = [1e-4 + (2e-2 - 1e-4) * t / 999 for t in range(TRAIN_STEPS)]
    product = 1.0
    for beta in betas:
        product *= 1 - beta
    assert kept[0].item() == pytest.approx(1 - 1e-4)
    assert kept[-1].item() == pytest.approx(product)
    assert (kept.diff() < 0).all()


@settings(max_examples=10, deadline=None)
@given(steps=st.integers(1, 20), seed=st.integers(0, 1000))
def test_a_perfect_denoiser_gives_the_features_back(steps: int, seed: int) -> None:
    clean, noise = draw(2, 3, 2, 2, seed=seed), draw(2, 3, 2, 2, seed=seed + 1)
    kept = signal_kept()[(steps - 1) * (TRAIN_STEPS // (2 * steps))]
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    torch.testing.assert_close(ddim_denoise(noisy, lambda x, t: noise, steps=steps), clean)


def test_five_steps_are_the_second_half_of_ten() -> None:
    asked: list[int] = []

    def predict(x: Tensor, t: int) -> Tensor:
        asked.append(t)
        return torch.zeros_like(x)

    features = draw(1, 2, 1, 1)
    left = ddim_denoise(features, predict, steps=5)
    assert asked == [400, 300, 200, 100, 0]
    # Without predicted noise the features are scaled up by what the schedule has taken.
    torch.testing.assert_close(left, features / signal_kept()[400].sqrt())


@pytest.mark.parametrize("latent", [0, 5])
def test_the_target_is_the_teachers_map_or_its_code(latent: int) -> None:
    torch.manual_seed(0)
    part = Diffusion(3, 7, kernel=3, latent=latent, steps=2).double()
    channels = latent or 7
    f_s = draw(4, 3, 2, 2).requires_grad_()
    f_t, noise = draw(4, 7, 2, 2, seed=1), draw(4, 2, channels, 2, 2, seed=2)
    refined, target, own = part(f_s, f_t, noise, torch.tensor([0, 10, 500, 999]))
    assert refined.shape == target.shape == (4, channels, 2, 2)
    assert not target.requires_grad
    assert target.equal(f_t) == (not latent)
    # The networks' own loss is about the teacher alone.
    (none,) = torch.autograd.grad(own, f_s, allow_unused=True, retain_graph=True)
    assert none is None
    assert torch.autograd.grad(refined.sum() + refined.square().sum(), f_s)[0].abs().sum() > 0
    assert "kept" not in part.state_dict()


def test_term_sums_both_distances_and_the_networks_losses() -> None:
    trial = trial_of("diffkd", ae_channels=4, temperature=2.0)
    assert isinstance(trial.term, nn.Module)
    seen: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: tuple[Tensor, ...]) -> None:
            seen[name] = output[0], output[1], output[2]

        return hook

    for name in ("features", "logits"):
        trial.term.get_submodule(f"parts.{name}").register_forward_hook(keep(name))
    value = trial.term(trial.batch)
    (f_s, f_t, own_features), (z_s, z_t, own_logits) = seen["features"], seen["logits"]
    assert z_t.flatten(1).equal(trial.batch.teacher.logits)
    soft = kd(z_s.flatten(1), z_t.flatten(1), temperature=2.0)
    torch.testing.assert_close(value, F.mse_loss(f_s, f_t) + soft + own_features + own_logits)


@pytest.mark.parametrize(
    ("given", "needs", "parts"),
    [
        ({}, {"logits", "map"}, ["features", "logits"]),
        ({"features": "stage"}, {"logits", "stage 3"}, ["features", "logits"]),
        ({"features": "none"}, {"logits"}, ["logits"]),
        ({"logits": False}, {"logits", "map"}, ["features"]),
    ],
)
def test_what_is_compared(given: dict[str, Value], needs: set[str], parts: list[str]) -> None:
    method = METHODS["diffkd"]
    hyperparameters = method.complete(given)
    found = method.needs(PairShapes(CNN, WIDER, 8), hyperparameters)
    assert found.student == found.teacher == needs
    trial = trial_of("diffkd", **{"ae_channels": 4, **given})  # type: ignore[arg-type]
    assert isinstance(trial.term, nn.Module)
    assert list(trial.term.get_submodule("parts")._modules) == parts
    assert trial.term(trial.batch) > 0


def test_noise_is_the_steps_own() -> None:
    trial = trial_of("diffkd", ae_channels=4)
    value = trial.term(trial.batch)
    assert trial.term(trial.batch) == value
    assert trial.term(replace(trial.batch, key=trial.batch.key + 1)) != value


def test_the_denoiser_learns_the_teachers_features() -> None:
    torch.manual_seed(0)
    part = Diffusion(3, 4, kernel=3, latent=0, steps=2)
    f_s, f_t = draw(16, 3, 2, 2).float(), draw(1, 4, 2, 2, seed=1).float().expand(16, 4, 2, 2)
    optimiser = torch.optim.Adam(part.parameters(), 0.02)
    losses = []
    for step in range(60):
        noise = draw(16, 2, 4, 2, 2, seed=step + 2).float()
        times = (torch.arange(16) * 61 + 17 * step) % 1000
        own = part(f_s, f_t, noise, times)[2]
        optimiser.zero_grad()
        own.backward()
        optimiser.step()
        losses.append(own.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_the_student_learns() -> None:
    trial = trial_of("diffkd", ae_channels=4)
    assert isinstance(trial.term, nn.Module)
    parts = [part.detach().clone().requires_grad_() for part in parts_of(trial.batch.student)]
    optimiser = torch.optim.Adam([*trial.term.parameters(), *parts], 0.02)

    def value(key: int) -> Tensor:
        batch: Batch = replace(with_parts(trial.batch, parts), key=key)
        return trial.term(batch)

    before = sum(value(key).item() for key in range(5))
    for step in range(30):
        optimiser.zero_grad()
        value(step).backward()
        optimiser.step()
    assert sum(value(key).item() for key in range(5)) < 0.8 * before


def test_refusals() -> None:
    shapes = PairShapes(CNN, WIDER, 8)
    assert refusal(shapes) == ""
    assert "at least 2 images, but got 1" in refusal(replace(shapes, batch_size=1))
    assert "features: none and logits: false" in refusal(shapes, features="none", logits=False)
    assert "but got 10 and 7" in refusal(replace(shapes, teacher=replace(WIDER, classes=7)))
    pooled = replace(shapes, student=replace(CNN, map=None))
    assert "student's embedding must be the mean of a map" in refusal(pooled)
    assert refusal(pooled, features="stage") == refusal(pooled, features="none") == ""
    bare = replace(shapes, teacher=OutputShapes(10, 8))
    assert "the teacher must put out stage features" in refusal(bare, features="stage")
    coarse = replace(shapes, teacher=replace(WIDER, map=(8, 2, 2)))
    assert "one size, but got 4 x 4 and 2 x 2" in refusal(coarse)
