"""Straightforward forms of the methods on views, regions, class maps and changed ends."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import cat_kd, crld, mlld, norm, rcka, sdd, simkd, srrl, tekap_logit
from plain._form import Forms
from plain.logits import kl_rows, logits

TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)
REGIONS, COPIES, CLASSES, GRID = 5, 3, 100, 8


def draw(*shapes: tuple[int, ...], dtype: torch.dtype, seed: int) -> tuple[Tensor, ...]:
    """Standard normal tensors of the given shapes."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)


def regions(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits of five regions and ``width`` classes, and labels."""
    shape = (batch_size, width, REGIONS)
    r_s, r_t = draw(shape, shape, dtype=dtype, seed=seed)
    return 3 * r_s, 4 * r_t, torch.arange(batch_size) % width


def two_views(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student and teacher logits of ``width`` classes in the weak, then in the strong view."""
    z_s, z_t = logits(width, batch_size=batch_size, dtype=dtype, seed=seed)
    n_s, n_t = draw(z_s.shape, z_t.shape, dtype=dtype, seed=seed + 1)
    return z_s, z_t, z_s + n_s, z_t + n_t


def with_noise(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits of ``width`` classes, and noise for three copies."""
    (noise,) = draw((COPIES, batch_size, width), dtype=dtype, seed=seed + 1)
    return *logits(width, batch_size=batch_size, dtype=dtype, seed=seed), noise


def embeddings(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Adapted and teacher embeddings of size ``width``, teacher logits and classifier."""
    e, z, w = (batch_size, width), (batch_size, CLASSES), (CLASSES, width)
    return draw(e, e, z, w, (CLASSES,), dtype=dtype, seed=seed)


def maps(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Two maps of ``width`` channels or classes at 8 x 8."""
    shape = (batch_size, width, GRID, GRID)
    return draw(shape, shape, dtype=dtype, seed=seed)


def expanded_maps(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """A student's map expanded to three copies and a teacher's of ``width`` channels, 8 x 8."""
    student = (batch_size, COPIES * width, GRID, GRID)
    return draw(student, (batch_size, width, GRID, GRID), dtype=dtype, seed=seed)


def plain_sdd(r_s: Tensor, r_t: Tensor, target: Tensor) -> Tensor:
    """Region after region, weights set by boolean masks."""
    total = r_s.new_zeros(())
    right = r_t[:, :, 0].argmax(dim=1) == target
    for n in range(r_s.shape[2]):
        loss = kl_rows(r_s[:, :, n] / 4, r_t[:, :, n] / 4) * 16
        region_right = r_t[:, :, n].argmax(dim=1) == target
        weight = torch.zeros_like(loss)
        weight[right & region_right] = 1.0
        weight[~right & ~region_right] = 1.0
        weight[right & ~region_right] = 2.0
        weight[~right & region_right] = 2.0
        total = total + (loss * weight).sum()
    return total / (r_s.shape[0] * r_s.shape[2])


def plain_mlld(z_s: Tensor, z_t: Tensor, z_s2: Tensor, z_t2: Tensor) -> Tensor:
    """Temperature after temperature, as the official trainer."""
    p_t = z_t.softmax(dim=1)
    confidence, class_confidence = p_t.amax(dim=1), p_t.sum(dim=0)
    mask = confidence <= confidence.quantile(0.5)
    class_mask = class_confidence <= class_confidence.quantile(0.5)
    total = z_s.new_zeros(())
    for number, t in enumerate(TEMPERATURES):
        instance = kl_rows(z_s / t, z_t / t).mean() * t**2
        p_s, p_t = (z_s / t).softmax(dim=1), (z_t / t).softmax(dim=1)
        classes = (p_t.T @ p_t - p_s.T @ p_s).square().sum() / z_s.shape[1]
        batch = (p_t @ p_t.T - p_s @ p_s.T).square().sum() / z_s.shape[0]
        strong = kl_rows(z_s2 / t, z_t2 / t).mean() * t**2 if number < 3 else instance
        total = total + (instance * mask).mean() + strong
        total = total + (classes * class_mask).mean() + (batch * mask).mean()
    return total


def plain_crld(z_s: Tensor, z_t: Tensor, z_s2: Tensor, z_t2: Tensor) -> Tensor:
    """Four distillations one by one."""
    mask_w = z_t.softmax(dim=1).amax(dim=1) >= 0.9
    mask_s = z_t2.softmax(dim=1).amax(dim=1) >= 0.2
    within = 16 * (kl_rows(z_s / 4, z_t / 4) + kl_rows(z_s2 / 4, z_t2 / 4))
    cross = 16 * (kl_rows(z_s2 / 4, z_t / 4) + kl_rows(z_s / 4, z_t2 / 4))
    return 2.0 * (within * mask_w).mean() + 0.5 * (cross * mask_s).mean()


def plain_tekap(z_s: Tensor, z_t: Tensor, noise: Tensor) -> Tensor:
    """Copy after copy of the teacher."""
    loss = kl_rows(z_s / 4, z_t / 4).mean() * 16
    for eps in noise:
        loss = loss + 0.8 * kl_rows(z_s / 4, (0.9 * z_t + 0.1 * eps) / 4).mean() * 16
    return loss


def plain_cka(x_s: Tensor, x_t: Tensor) -> Tensor:
    """Gram matrices, divided row by row, and traces of their products."""
    k_s, k_t = x_s @ x_s.T, x_t @ x_t.T
    k_s = k_s / k_s.diag().sqrt()[:, None]
    k_t = k_t / k_t.diag().sqrt()[:, None]
    norms = (k_s @ k_s.T).trace() * (k_t @ k_t.T).trace()
    return (k_s @ k_t.T).trace() / norms.sqrt()


def plain_rcka(z_s: Tensor, z_t: Tensor) -> Tensor:
    return -plain_cka(z_s, z_t) - plain_cka(z_s.T, z_t.T)


def plain_srrl(a_s: Tensor, e_t: Tensor, z_t: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Sample after sample."""
    features = [F.mse_loss(a, e) for a, e in zip(a_s, e_t, strict=True)]
    scores = [F.mse_loss(weight @ a + bias, z) for a, z in zip(a_s, z_t, strict=True)]
    return torch.stack(features).mean() + torch.stack(scores).mean()


def plain_cat_kd(m_s: Tensor, m_t: Tensor) -> Tensor:
    """Class map after class map, pooled to 2 x 2 and normalised."""
    losses = []
    for s, t in zip(m_s.transpose(0, 1), m_t.transpose(0, 1), strict=True):
        pooled_s, pooled_t = F.adaptive_avg_pool2d(s, 2), F.adaptive_avg_pool2d(t, 2)
        unit_s = F.normalize(pooled_s, dim=(1, 2))  # type: ignore[arg-type]
        losses.append(F.mse_loss(unit_s, F.normalize(pooled_t, dim=(1, 2))))  # type: ignore[arg-type]
    return torch.stack(losses).mean()


def plain_simkd(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Channel after channel."""
    pairs = zip(f_s.unbind(1), f_t.unbind(1), strict=True)
    return torch.stack([F.mse_loss(s, t) for s, t in pairs]).mean()


def plain_norm(f_s: Tensor, f_t: Tensor) -> Tensor:
    """The teacher's map tiled, as in the official loop."""
    return F.mse_loss(f_s, f_t.repeat(1, COPIES, 1, 1)) * COPIES


CRLD: dict[str, Any] = {"w_wv": 2.0, "w_cv": 0.5, "temperature": 4.0, "tau_w": 0.9, "tau_s": 0.2}

# fmt: off
FORMS: tuple[Forms, ...] = (
    Forms("sdd", lambda r_s, r_t, y: sdd(r_s, r_t, y, base="kd", temperature=4.0),
          plain_sdd, regions, "C", (100, 1000)),
    Forms("mlld", lambda *views: mlld(*views, temperatures=TEMPERATURES),
          plain_mlld, two_views, "C", (100, 1000)),
    Forms("crld", lambda *views: crld(*views, **CRLD), plain_crld, two_views, "C", (100, 1000)),
    Forms("tekap", lambda *inputs: tekap_logit(*inputs, temperature=4.0),
          plain_tekap, with_noise, "C", (100, 1000)),
    Forms("rcka", lambda z_s, z_t: rcka(z_s, z_t, inter=1.0, intra=1.0),
          plain_rcka, logits, "C", (100, 1000)),
    Forms("srrl", lambda *inputs: srrl(*inputs, alpha=1.0, beta=1.0),
          plain_srrl, embeddings, "D", (64, 256, 2048)),
    Forms("cat_kd", lambda m_s, m_t: cat_kd(m_s, m_t, resolution=2, normalise=True),
          plain_cat_kd, maps, "C", (100, 1000)),
    Forms("simkd", simkd, plain_simkd, maps, "channels", (16, 64, 256)),
    Forms("norm", norm, plain_norm, expanded_maps, "channels", (16, 64, 256)),
)
# fmt: on
