"""The recipe in numbers: the learning rate of an epoch, and the optimiser of a student."""

from __future__ import annotations

import math

from torch import nn, optim

from kdscale.training._spec import RecipeSpec


def learning_rate(recipe: RecipeSpec, epoch: int, epochs: int) -> float:
    """Returns the learning rate of one epoch, a pure function of the recipe.

    The warm-up is linear, as in LDRLD's code: epoch e of w trains with ``lr * e / w``. Cosine
    annealing runs over the epochs after the warm-up and reaches ``min_lr`` one step after the
    last of them; milestones multiply by ``gamma`` in the epochs after each milestone.

    Args:
        recipe: The recipe.
        epoch: The epoch, counted from 1.
        epochs: Epochs of a full run.
    """
    if epoch <= recipe.warmup_epochs:
        return recipe.lr * epoch / recipe.warmup_epochs
    if recipe.schedule == "cosine":
        progress = (epoch - 1 - recipe.warmup_epochs) / (epochs - recipe.warmup_epochs)
        half = 0.5 * (1.0 + math.cos(math.pi * progress))
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * half
    if recipe.schedule == "milestones":
        passed = sum(epoch > milestone for milestone in recipe.milestones)
        return max(recipe.min_lr, recipe.lr * recipe.gamma**passed)
    return recipe.lr


def make_optimizer(recipe: RecipeSpec, module: nn.Module) -> optim.Optimizer:
    """Returns the recipe's optimiser over all parameters of a module.

    SGD decays every parameter, as the CIFAR literature's code does; AdamW leaves biases and
    normalisation weights alone, as timm does.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        return optim.SGD(
            parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return optim.AdamW([g for g in groups if g["params"]], lr=recipe.lr, betas=recipe.betas)
