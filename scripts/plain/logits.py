"""Straightforward forms of the logit methods beside kd, dkd and ldrld."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import (
    ctkd,
    dist,
    lskd_kd,
    nkd,
    normkd,
    ntce,
    rld,
    sphericalkd,
    ttm,
    wttm,
)
from plain._form import Forms

TEMPERATURE, FACTORS = 4.0, (2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0)


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


def with_theta(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits of ``width`` classes, and CTKD's theta."""
    theta = torch.ones(1, dtype=dtype)
    return *logits(width, batch_size=batch_size, dtype=dtype, seed=seed), theta


def kl_rows(s: Tensor, t: Tensor) -> Tensor:
    """KL of each sample's softmaxes, ``[B]``."""
    return F.kl_div(F.log_softmax(s, dim=1), F.softmax(t, dim=1), reduction="none").sum(1)


def plain_nkd(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    """The label's column is taken out by a boolean index, as in cls_KD."""
    y = target.view(-1, 1)
    log_p_y = torch.gather(F.log_softmax(z_s, dim=1), 1, y)
    p_y = torch.gather(F.softmax(z_t, dim=1), 1, y)
    others = torch.ones_like(z_s).scatter_(1, y, 0).bool()
    rest_s, rest_t = (z[others].reshape(len(z), -1) for z in (z_s, z_t))
    log_q = F.log_softmax(rest_s / TEMPERATURE, dim=1)
    q = F.softmax(rest_t / TEMPERATURE, dim=1)
    return -(p_y * log_p_y).mean() - 1.5 * TEMPERATURE**2 * (q * log_q).sum(1).mean()


def transformed(z_s: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the teacher's powers and KL, of each sample, as in TTM's repository."""
    powers = torch.pow(torch.softmax(z_t, dim=1), 0.2)
    norm = torch.sum(powers, dim=1)
    p = powers / norm.unsqueeze(1)
    return norm, torch.sum(F.kl_div(F.log_softmax(z_s, dim=1), p, reduction="none"), dim=1)


def plain_ttm(z_s: Tensor, z_t: Tensor) -> Tensor:
    return transformed(z_s, z_t)[1].mean()


def plain_wttm(z_s: Tensor, z_t: Tensor) -> Tensor:
    norm, kl = transformed(z_s, z_t)
    return torch.mean(norm * kl)


def plain_lskd(z_s: Tensor, z_t: Tensor) -> Tensor:
    s, t = ((z - z.mean(1, keepdim=True)) / (1e-7 + z.std(1, keepdim=True)) for z in (z_s, z_t))
    return kl_rows(s / 2, t / 2).mean() * 4


def plain_normkd(z_s: Tensor, z_t: Tensor) -> Tensor:
    tau_s, tau_t = (2 * z.std(dim=1, keepdim=True) for z in (z_s, z_t))
    return (kl_rows(z_s / tau_s, z_t / tau_t).unsqueeze(1) * tau_t**2).mean()


def plain_sphericalkd(z_s: Tensor, z_t: Tensor) -> Tensor:
    """The two lines of the README, then KD."""
    s, t = (F.layer_norm(z, torch.Size((z.shape[1],)), None, None, 1e-7) * 2 for z in (z_s, z_t))
    return kl_rows(s / TEMPERATURE, t / TEMPERATURE).mean() * TEMPERATURE**2


def plain_dist(z_s: Tensor, z_t: Tensor) -> Tensor:
    def correlation(a: Tensor, b: Tensor) -> Tensor:
        a, b = (x - x.mean(1).unsqueeze(1) for x in (a, b))
        return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)).mean()

    p_s, p_t = ((z / TEMPERATURE).softmax(dim=1) for z in (z_s, z_t))
    inter, intra = 1 - correlation(p_s, p_t), 1 - correlation(p_s.T, p_t.T)
    return TEMPERATURE**2 * (inter + intra)


def plain_rld(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    """Masks for the chosen class and for the others, and for the classes above the label."""

    def two_way(z: Tensor, chosen: Tensor) -> Tensor:
        mask = torch.zeros_like(z).scatter_(1, chosen.unsqueeze(1), 1).bool()
        p = F.softmax(z, dim=1)
        return torch.cat([(p * m).sum(1, keepdim=True) for m in (mask, ~mask)], dim=1)

    log_q = torch.log(two_way(z_s, target))
    scd = F.kl_div(log_q, two_way(z_t, z_t.argmax(dim=1)), reduction="batchmean")
    mask = torch.where(z_t >= torch.gather(z_t, 1, target.unsqueeze(1)), 1, 0).bool()
    s, t = ((z / TEMPERATURE).masked_fill(mask, -1e9) for z in (z_s, z_t))
    return scd + 8.0 * kl_rows(s, t).mean() * TEMPERATURE**2


def plain_ntce(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    """One KD a factor, each of its own two sets of logits."""
    two = torch.topk(z_t, k=2, dim=1)
    margin = (two.values[:, 0] - two.values[:, 1]).unsqueeze(1)
    top = torch.zeros_like(z_t).scatter_(1, two.indices[:, :1], 1)
    label = torch.zeros_like(z_s).scatter_(1, target.unsqueeze(1), 1)
    parts = []
    for factor in FACTORS:
        s, t = z_s - factor * margin * label, z_t - factor * margin * top
        parts.append(kl_rows(s / TEMPERATURE, t / TEMPERATURE).mean() * TEMPERATURE**2)
    return torch.stack(parts).sum() / len(parts)


def plain_ctkd(z_s: Tensor, z_t: Tensor, theta: Tensor) -> Tensor:
    """The temperature as a number: the reversal changes no value and no student's gradient."""
    temperature = 1 + 20 / (1 + math.exp(-theta.item()))
    return kl_rows(z_s / temperature, z_t / temperature).mean() * temperature**2


FORMS: tuple[Forms, ...] = (
    Forms(
        method="nkd",
        ours=lambda s, t, y: nkd(s, t, y, temperature=TEMPERATURE, gamma=1.5),
        plain=plain_nkd,
        inputs=labelled,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="ttm",
        ours=lambda s, t: ttm(s, t, gamma=0.2),
        plain=plain_ttm,
        inputs=logits,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="wttm",
        ours=lambda s, t: wttm(s, t, gamma=0.2),
        plain=plain_wttm,
        inputs=logits,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="lskd",
        ours=lambda s, t: lskd_kd(s, t, temperature=2.0),
        plain=plain_lskd,
        inputs=logits,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="normkd",
        ours=lambda s, t: normkd(s, t, temperature=2.0),
        plain=plain_normkd,
        inputs=logits,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="sphericalkd",
        ours=lambda s, t: sphericalkd(s, t, temperature=TEMPERATURE, m=2.0),
        plain=plain_sphericalkd,
        inputs=logits,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="dist",
        ours=lambda s, t: dist(s, t, temperature=TEMPERATURE, beta=1.0, gamma=1.0),
        plain=plain_dist,
        inputs=logits,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="rld",
        ours=lambda s, t, y: rld(
            s, t, y, alpha=1.0, beta=8.0, temperature=TEMPERATURE, alpha_temperature=1.0
        ),
        plain=plain_rld,
        inputs=labelled,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="ntce",
        ours=lambda s, t, y: ntce(s, t, y, temperature=TEMPERATURE, factors=FACTORS),
        plain=plain_ntce,
        inputs=labelled,
        axis="C",
        widths=(100, 1000),
    ),
    Forms(
        method="ctkd",
        ours=lambda s, t, theta: ctkd(s, t, theta, t_start=1.0, t_end=20.0, lambda_=-1.0),
        plain=plain_ctkd,
        inputs=with_theta,
        axis="C",
        widths=(100, 1000),
    ),
)
