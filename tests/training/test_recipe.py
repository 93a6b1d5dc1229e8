from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from kdscale.training import RecipeSpec, learning_rate, make_optimizer

LDRLD = RecipeSpec(
    lr=0.05, schedule="milestones", milestones=(150, 180, 210), gamma=0.1, warmup_epochs=20
)
RSD_CNN = RecipeSpec(lr=0.05, min_lr=1e-3, weight_decay=2e-3, schedule="cosine", warmup_epochs=3)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (1, 0.0025),
        (10, 0.025),
        (19, 0.0475),
        (20, 0.05),
        (21, 0.05),
        (150, 0.05),
        (151, 5e-3),
        (180, 5e-3),
        (181, 5e-4),
        (211, 5e-5),
        (240, 5e-5),
    ],
)
def test_ldrlds_recipe(epoch: int, rate: float) -> None:
    assert learning_rate(LDRLD, epoch, 240) == pytest.approx(rate, rel=1e-12)


def test_milestones_are_those_of_the_cifar_literatures_code() -> None:
    recipe = LDRLD.model_copy(update={"warmup_epochs": 0})
    for epoch in range(1, 241):
        # adjust_learning_rate of RepDistiller, where epochs count from 1.
        steps = int(np.sum(epoch > np.asarray([150, 180, 210])))
        assert learning_rate(recipe, epoch, 240) == pytest.approx(0.05 * 0.1**steps, rel=1e-12)


def test_cosine_ends() -> None:
    rates = [learning_rate(RSD_CNN, epoch, 300) for epoch in range(1, 301)]
    assert rates[:4] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05, 0.05])
    assert 1e-3 < rates[-1] < 1.01e-3
    # One step after the last epoch the annealing would reach min_lr.
    assert learning_rate(RSD_CNN, 301, 300) == pytest.approx(1e-3, rel=1e-12)
    half = learning_rate(RecipeSpec(lr=1.0), 6, 10)
    assert half == pytest.approx(0.5)


def test_cosine_is_torchs() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=RSD_CNN.lr)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=297, eta_min=1e-3)
    for epoch in range(4, 301):
        expected = schedule.get_last_lr()[0]
        assert learning_rate(RSD_CNN, epoch, 300) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        schedule.step()


def test_a_constant_rate_has_a_warm_up_too() -> None:
    recipe = RecipeSpec(lr=0.4, schedule="constant", warmup_epochs=2)
    assert [learning_rate(recipe, epoch, 5) for epoch in range(1, 6)] == [0.2, 0.4, 0.4, 0.4, 0.4]


def test_min_lr_bounds_milestones() -> None:
    recipe = RecipeSpec(lr=1.0, schedule="milestones", milestones=(1, 2), gamma=0.1, min_lr=0.05)
    assert [learning_rate(recipe, epoch, 3) for epoch in (1, 2, 3)] == [1.0, 0.1, 0.05]


@st.composite
def runs(draw: st.DrawFn) -> tuple[RecipeSpec, int]:
    """Draws a recipe and a number of epochs, which the warm-up may exceed."""
    epochs = draw(st.integers(1, 50))
    lr = draw(st.floats(1e-5, 10))
    schedule = draw(st.sampled_from(["cosine", "milestones", "constant"]))
    fields: dict[str, Any] = {
        "lr": lr,
        "schedule": schedule,
        "min_lr": draw(st.floats(0, 1)) * lr,
        "warmup_epochs": draw(st.integers(0, 60)),
        "gamma": draw(st.floats(0.01, 1)),
    }
    if schedule == "milestones":
        places = draw(st.sets(st.integers(1, 60), min_size=1, max_size=4))
        fields["milestones"] = sorted(places)
    return RecipeSpec(**fields), epochs


@given(runs())
def test_the_rate_climbs_to_lr_and_then_never_climbs(run: tuple[RecipeSpec, int]) -> None:
    recipe, epochs = run
    rates = [learning_rate(recipe, epoch, epochs) for epoch in range(1, epochs + 1)]
    top = recipe.lr * (1 + 1e-9)
    climb, fall = rates[: recipe.warmup_epochs], rates[recipe.warmup_epochs :]
    assert climb == sorted(climb)
    assert fall == sorted(fall, reverse=True)
    assert all(0 < rate <= top for rate in climb)
    floor = 0.0 if recipe.schedule == "constant" else recipe.min_lr * (1 - 1e-9)
    assert all(floor <= rate <= top for rate in fall)
    assert rates == [learning_rate(recipe, epoch, epochs) for epoch in range(1, epochs + 1)]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_sgd_decays_all_parameters() -> None:
    recipe = RecipeSpec(lr=0.3, momentum=0.8, nesterov=True, weight_decay=1e-3)
    module = network()
    optimizer = make_optimizer(recipe, module)
    assert isinstance(optimizer, optim.SGD)
    [group] = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in module.parameters()]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.3, 0.8, True)
    assert group["weight_decay"] == 1e-3


def test_adamw_spares_biases_and_normalisation() -> None:
    recipe = RecipeSpec(optimizer="adamw", lr=5e-4, betas=(0.8, 0.95), weight_decay=0.05)
    module = network()
    optimizer = make_optimizer(recipe, module)
    assert isinstance(optimizer, optim.AdamW)
    decayed, spared = optimizer.param_groups
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == ["0.weight", "3.weight"]
    assert [names[id(p)] for p in spared["params"]] == ["0.bias", "1.weight", "1.bias", "3.bias"]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    for group in (decayed, spared):
        assert (group["lr"], group["betas"]) == (5e-4, (0.8, 0.95))


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False))
    module[0].requires_grad_(False)
    for recipe in (RecipeSpec(), RecipeSpec(optimizer="adamw")):
        [group] = make_optimizer(recipe, module).param_groups
        assert [p is module[1].weight for p in group["params"]] == [True]
