"""Straightforward forms of one family of methods: heavy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import ddim_denoise, fcfd_appearance, hcl, ofa, rsd
from plain._form import Forms
from plain.core import labelled, plain_rsd

EPS, KAPPA, STAGES, STEPS = 1.5, 0.01, 4, 5


def stage_logits(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Projected logits of four stages, and the teacher's, of ``width`` classes."""
    generator = torch.Generator().manual_seed(seed)
    z_s = 3 * torch.randn(STAGES, batch_size, width, generator=generator, dtype=dtype)
    return z_s, 4 * torch.randn(batch_size, width, generator=generator, dtype=dtype)


def maps(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Student and teacher maps of ``width`` channels and 8 x 8 positions."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, width, 8, 8)
    f_s = torch.randn(shape, generator=generator, dtype=dtype)
    return f_s, torch.randn(shape, generator=generator, dtype=dtype)


def noisy_maps(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Noisy student maps, and the weights of a denoiser of one 1x1 convolution."""
    f_s, _ = maps(width, batch_size=batch_size, dtype=dtype, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    weight = torch.randn(width, width, 1, 1, generator=generator, dtype=dtype) / width**0.5
    return f_s, weight


def plain_ofa(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    """A one-hot mask, and the logarithm of a softmax, as the authors' code has it."""
    mask = F.one_hot(target, z_s.shape[1])
    weights = (F.softmax(z_t, dim=1) + mask) ** EPS - mask
    return (-weights * torch.log(F.softmax(z_s, dim=1))).sum(dim=1).mean()


def our_ofa_rsd(z_s: Tensor, z_t: Tensor) -> Tensor:
    """The stages' sum, as the term has it."""
    return torch.stack([rsd(logits, z_t, kappa=KAPPA) for logits in z_s]).sum()


def plain_ofa_rsd(z_s: Tensor, z_t: Tensor) -> Tensor:
    """The whole C x C matrix of each stage."""
    total = torch.zeros((), dtype=z_s.dtype)
    for logits in z_s:
        total = total + plain_rsd(logits, z_t)
    return total


def plain_hcl(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Both maps pooled to each size, as the authors' code has it."""
    loss, weight, total = F.mse_loss(f_s, f_t), 1.0, 1.0
    for level in (4, 2, 1):
        if level >= f_s.shape[2]:
            continue
        weight /= 2.0
        pooled_s = F.adaptive_avg_pool2d(f_s, (level, level))
        pooled_t = F.adaptive_avg_pool2d(f_t, (level, level))
        loss = loss + F.mse_loss(pooled_s, pooled_t) * weight
        total += weight
    return loss / total


def our_appearance(f_s: Tensor, f_t: Tensor) -> Tensor:
    """The last stage's."""
    return fcfd_appearance(f_s, f_t, last=True)


def plain_appearance(f_s: Tensor, f_t: Tensor) -> Tensor:
    """The maps' distance, and their pooled rectified values', as the authors' code has it."""
    loss = F.mse_loss(f_s, f_t)
    pooled_s = F.adaptive_avg_pool2d(F.relu(f_s), 1).view(len(f_s), -1)
    pooled_t = F.adaptive_avg_pool2d(F.relu(f_t), 1).view(len(f_t), -1)
    return loss + F.mse_loss(pooled_s, pooled_t)


def our_denoise(f_s: Tensor, weight: Tensor) -> Tensor:
    """The mean square of what five steps leave."""
    return ddim_denoise(f_s, lambda x, t: F.conv2d(x, weight).tanh(), steps=STEPS).square().mean()


def plain_denoise(f_s: Tensor, weight: Tensor) -> Tensor:
    """Each DDIM step by way of the predicted features, as the authors' scheduler has it."""
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
    ratio = 1000 // (2 * STEPS)
    timesteps = [i * ratio for i in range(2 * STEPS)][::-1]
    x = f_s
    for t in timesteps[STEPS:]:
        alpha = alphas_cumprod[t].to(x)
        previous = alphas_cumprod[t - ratio].to(x) if t - ratio >= 0 else x.new_tensor(1.0)
        noise = F.conv2d(x, weight).tanh()
        original = (x - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        noise = (x - alpha**0.5 * original) / (1 - alpha) ** 0.5
        x = previous**0.5 * original + (1 - previous) ** 0.5 * noise
    return x.square().mean()


FORMS: tuple[Forms, ...] = (
    Forms("ofa", lambda s, t, y: ofa(s, t, y, eps=EPS), plain_ofa, labelled, "C", (100, 1000)),
    Forms("ofa_rsd", our_ofa_rsd, plain_ofa_rsd, stage_logits, "C", (100, 1000)),
    Forms("reviewkd", hcl, plain_hcl, maps, "channels", (16, 64, 256)),
    Forms("fcfd", our_appearance, plain_appearance, maps, "channels", (16, 64, 256)),
    Forms("diffkd", our_denoise, plain_denoise, noisy_maps, "channels", (16, 64, 256)),
)
