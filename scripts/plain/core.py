"""Straightforward forms of one family of methods: core."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import dkd, kd, ldrld, rsd
from plain._form import Forms

DEPTH, TEMPERATURE, KAPPA = 7, 4.0, 0.01


def logits(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Student and teacher logits of ``width`` classes."""
    generator = torch.Generator().manual_seed(seed)
    z_s = 3 * torch.randn(batch_size, width, generator=generator, dtype=dtype)
    return z_s, 4 * torch.randn(batch_size, width, generator=generator, dtype=dtype)


def labelled(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits of ``width`` classes, and labels."""
    labels = torch.arange(batch_size) % width
    return *logits(width, batch_size=batch_size, dtype=dtype, seed=seed), labels


def masked_kl(z_s: Tensor, z_t: Tensor, outside: Tensor) -> Tensor:
    """T² KL of the softmaxes over the classes that the mask leaves, mean over the batch."""
    p = F.softmax(z_t / TEMPERATURE - 1000.0 * outside, dim=1)
    log_q = F.log_softmax(z_s / TEMPERATURE - 1000.0 * outside, dim=1)
    return F.kl_div(log_q, p, reduction="sum") * TEMPERATURE**2 / len(z_s)


def plain_kd(z_s: Tensor, z_t: Tensor) -> Tensor:
    """mdistiller's lines: log-softmax, softmax, kl_div without reduction, sum, mean."""
    log_q = F.log_softmax(z_s / TEMPERATURE, dim=1)
    p = F.softmax(z_t / TEMPERATURE, dim=1)
    return F.kl_div(log_q, p, reduction="none").sum(1).mean() * TEMPERATURE**2


def plain_dkd(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    """Masks for the target and for the others, as mdistiller has it."""
    is_target = torch.zeros_like(z_s).scatter(1, target.unsqueeze(1), 1).bool()
    others = torch.ones_like(z_s).scatter(1, target.unsqueeze(1), 0).bool()

    def two_way(z: Tensor) -> Tensor:
        p = F.softmax(z / TEMPERATURE, dim=1)
        return torch.cat([(p * mask).sum(1, keepdim=True) for mask in (is_target, others)], dim=1)

    log_q = torch.log(two_way(z_s))
    tckd = F.kl_div(log_q, two_way(z_t), reduction="sum") * TEMPERATURE**2 / len(z_s)
    return tckd + 8.0 * masked_kl(z_s, z_t, is_target)


def plain_ldrld(z_s: Tensor, z_t: Tensor) -> Tensor:
    """One masked softmax over all classes a pair, as the authors' code has it."""
    top = z_s.topk(DEPTH, dim=1).indices
    groups = [*itertools.combinations(range(DEPTH), 2), tuple(range(DEPTH))]
    local = torch.zeros((), dtype=z_s.dtype)
    for ranks in groups:
        outside = torch.ones_like(z_t).scatter(1, top[:, list(ranks)], 0).bool()
        weight = 1.0
        if len(ranks) == 2:
            i, j = ranks[0] + 1, ranks[1] + 1
            weight = 1.0 / (1.5 + abs(i - j)) * 2.0 * math.exp(-0.05 * (i + j))
        local = local + weight * masked_kl(z_s, z_t, outside)
    inside = torch.zeros_like(z_t).scatter(1, top, 1).bool()
    return 10.5 * local / len(groups) + 7.0 * masked_kl(z_s, z_t, inside)


def plain_rsd(e_s: Tensor, e_t: Tensor) -> Tensor:
    """The whole D x D matrix and a boolean index for its off-diagonal, as the authors' code."""
    a, b = ((e - e.mean(0)) / (e.std(0, unbiased=False) + 1e-5) for e in (e_s, e_t))
    correlations = torch.mm(b.T, a) / len(a)
    identity = torch.eye(len(correlations), dtype=a.dtype)
    loss = (correlations - identity).pow(2)
    loss[(1 - identity).bool()] *= KAPPA
    return loss.sum()


FORMS: tuple[Forms, ...] = (
    Forms(
        method="kd",
        ours=lambda z_s, z_t: kd(z_s, z_t, temperature=TEMPERATURE),
        plain=plain_kd,
        inputs=logits,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="dkd",
        ours=lambda z_s, z_t, y: dkd(z_s, z_t, y, alpha=1.0, beta=8.0, temperature=TEMPERATURE),
        plain=plain_dkd,
        inputs=labelled,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="ldrld",
        ours=lambda z_s, z_t: ldrld(
            z_s, z_t, alpha=10.5, beta=7.0, depth=DEPTH, temperature=TEMPERATURE
        ),
        plain=plain_ldrld,
        inputs=logits,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="rsd",
        ours=lambda e_s, e_t: rsd(e_s, e_t, kappa=KAPPA),
        plain=plain_rsd,
        inputs=logits,
        axis="D",
        widths=(64, 256, 1024, 2048),
    ),
)
