"""Straightforward forms of the methods that compare feature maps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import ab, at, fitnet, ft_factor, ickd, mgd, nst, ofd, ofd_margin, vid
from plain._form import Forms

GRID = 8
WIDTHS = (16, 64, 256)
Maps = Callable[..., tuple[Tensor, ...]]


def maps(*, teacher_width: float = 1.0, relu: bool = True) -> Maps:
    """Returns what makes a student's map and a teacher's, after a ReLU or before it."""

    def inputs(
        width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        found = (
            torch.randn(batch_size, channels, GRID, GRID, generator=generator, dtype=dtype)
            for channels in (width, int(teacher_width * width))
        )
        return tuple(f.relu() if relu else f for f in found)

    return inputs


def vid_inputs(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    f_s, f_t = maps()(width, batch_size=batch_size, dtype=dtype, seed=seed)
    return f_s, f_t, torch.linspace(-2, 5, width, dtype=dtype)


def ofd_inputs(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    f_s, f_t = maps(relu=False)(width, batch_size=batch_size, dtype=dtype, seed=seed)
    weight = torch.linspace(-1, 1.5, width, dtype=dtype)
    return f_s, f_t, weight, torch.linspace(1, -1, width, dtype=dtype)


def plain_fitnet(f_s: Tensor, f_t: Tensor) -> Tensor:
    images = [(s - t).square().sum() for s, t in zip(f_s, f_t, strict=True)]
    return torch.stack(images).sum() / f_s.numel()


def attention(f: Tensor) -> Tensor:
    return F.normalize(f.pow(2).mean(1).view(f.size(0), -1))


def plain_at(f_s: Tensor, f_t: Tensor) -> Tensor:
    return (attention(f_s) - attention(f_t)).pow(2).mean()


def plain_ft(f_s: Tensor, f_t: Tensor) -> Tensor:
    return (attention(f_s) - attention(f_t)).abs().mean()


def plain_nst(f_s: Tensor, f_t: Tensor) -> Tensor:
    """All products of two channels at each position."""
    s, t = (F.normalize(f.flatten(2), dim=2) for f in (f_s, f_t))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(1) * b.unsqueeze(2)).sum(-1).pow(2).mean()

    # One image at a time: all at once would take 4 GiB at 256 channels.
    images = [
        kernel(b, b) + kernel(a, a) - 2 * kernel(a, b)
        for a, b in zip(s.split(1), t.split(1), strict=True)
    ]
    return torch.stack(images).mean()


def plain_vid(prediction: Tensor, f_t: Tensor, log_scale: Tensor) -> Tensor:
    variance = (torch.log(1.0 + torch.exp(log_scale)) + 1e-5).view(1, -1, 1, 1)
    return (0.5 * ((prediction - f_t) ** 2 / variance + torch.log(variance))).mean()


def plain_ab(f_s: Tensor, f_t: Tensor) -> Tensor:
    off = (f_s + 1) ** 2 * ((f_s > -1) & (f_t <= 0)).to(f_s)
    on = (f_s - 1) ** 2 * ((f_s <= 1) & (f_t > 0)).to(f_s)
    return (off + on).abs().sum() / len(f_s) / 1000 * 3


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def plain_margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Channel by channel."""
    found = []
    for s, m in zip(weight.abs().tolist(), bias.tolist(), strict=True):
        below = normal_cdf(-m / s)
        density = math.exp(-((m / s) ** 2) / 2) / math.sqrt(2 * math.pi)
        found.append(m - s * density / below if below > 0.001 else -3 * s)
    return torch.tensor(found, dtype=weight.dtype).view(1, -1, 1, 1)


def plain_ofd(f_s: Tensor, f_t: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    margin = plain_margin(weight, bias)
    loss = (
        (f_s - margin) ** 2 * ((f_s > margin) & (f_t <= margin)).to(f_s)
        + (f_s - f_t) ** 2 * ((f_s > f_t) & (f_t > margin) & (f_t <= 0)).to(f_s)
        + (f_s - f_t) ** 2 * (f_t > 0).to(f_s)
    )
    return loss.abs().mean(dim=0).sum()


def plain_ickd(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Both C x C matrices of each image."""
    batch_size, channels = f_s.shape[:2]
    s, t = f_s.flatten(2), f_t.flatten(2)
    gram_s = F.normalize(torch.bmm(s, s.permute(0, 2, 1)), dim=2)
    gram_t = F.normalize(torch.bmm(t, t.permute(0, 2, 1)), dim=2)
    difference = gram_s - gram_t
    return (difference * difference).view(batch_size, -1).sum() / (channels * batch_size)


def plain_mgd(generated: Tensor, f_t: Tensor) -> Tensor:
    images = [(g - t).square().sum() for g, t in zip(generated, f_t, strict=True)]
    return torch.stack(images).sum() / len(f_t)


def our_ofd(f_s: Tensor, f_t: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ofd(f_s, f_t, ofd_margin(weight, bias))


FORMS: tuple[Forms, ...] = (
    Forms("fitnet", fitnet, plain_fitnet, maps(), "channels", WIDTHS),
    Forms("at", at, plain_at, maps(teacher_width=1.5), "channels", WIDTHS),
    Forms("vid", vid, plain_vid, vid_inputs, "channels", WIDTHS),
    Forms("nst", nst, plain_nst, maps(teacher_width=1.5), "channels", WIDTHS),
    Forms("ft", ft_factor, plain_ft, maps(teacher_width=1.5), "channels", WIDTHS),
    Forms("ab", ab, plain_ab, maps(relu=False), "channels", WIDTHS),
    Forms("ofd", our_ofd, plain_ofd, ofd_inputs, "channels", WIDTHS),
    Forms("ickd", ickd, plain_ickd, maps(), "channels", WIDTHS),
    Forms("mgd", mgd, plain_mgd, maps(), "channels", WIDTHS),
)
