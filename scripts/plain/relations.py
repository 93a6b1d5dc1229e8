"""Straightforward forms of the methods that relate the images of a batch to each other."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import CRDContrast, CrossStageAttention, cc, cckd, pkt, rkd, sp
from plain._form import Forms

GAMMA, ORDER = 0.4, 2
CRD_TEMPERATURE = 0.07
IMAGES, NEGATIVES = 50_000, 16_384


def embeddings(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Student and teacher embeddings with ``width`` dimensions."""
    generator = torch.Generator().manual_seed(seed)
    e_s = torch.randn(batch_size, width, generator=generator, dtype=dtype)
    return e_s, torch.randn(batch_size, width, generator=generator, dtype=dtype)


def maps(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Student and teacher maps of 8x8 with ``width`` channels."""
    generator = torch.Generator().manual_seed(seed)
    f_s = torch.randn(batch_size, width, 8, 8, generator=generator, dtype=dtype)
    return f_s, torch.randn(batch_size, width, 8, 8, generator=generator, dtype=dtype)


def stages(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Three stages of the student, of 16x16, 8x8 and 4x4, and three of the teacher."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch_size, width * 2**k, 16 // 2**k, 16 // 2**k) for k in range(3)] * 2
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)


def remembered(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Embeddings, the images' numbers and their candidates: CIFAR's numbers for a batch of 64."""
    generator = torch.Generator().manual_seed(seed)
    n_data, negatives = sizes(batch_size)
    index = torch.randperm(n_data, generator=generator)[:batch_size]
    others = torch.randint(n_data, (batch_size, negatives), generator=generator)
    candidates = torch.cat([index.unsqueeze(1), others], dim=1)
    return *embeddings(width, batch_size=batch_size, dtype=dtype, seed=seed), index, candidates


def sizes(batch_size: int) -> tuple[int, int]:
    """Images and negatives; fewer for a small batch, which is for tests."""
    return (IMAGES, NEGATIVES) if batch_size >= 64 else (200, 60)


def plain_sp(f_s: Tensor, f_t: Tensor) -> Tensor:
    """RepDistiller's lines."""
    f_s, f_t = f_s.view(len(f_s), -1), f_t.view(len(f_t), -1)
    g_s = F.normalize(torch.mm(f_s, torch.t(f_s)))
    g_t = F.normalize(torch.mm(f_t, torch.t(f_t)))
    difference = g_t - g_s
    return (difference * difference).view(-1, 1).sum(0).squeeze(0) / (len(f_s) * len(f_s))


def plain_cc(e_s: Tensor, e_t: Tensor) -> Tensor:
    """One pair of neighbours after the other."""
    delta = torch.abs(e_s - e_t)
    pairs = [(delta[b] * delta[b + 1]).sum() for b in range(len(delta) - 1)]
    return torch.stack(pairs).mean()


def plain_cckd(e_s: Tensor, e_t: Tensor) -> Tensor:
    """One row of the kernel and one power after the other, as torchdistill has it."""

    def kernel(e: Tensor) -> Tensor:
        rows = []
        for one in e:
            products = torch.matmul(one, torch.t(e))
            row = torch.ones_like(products)
            for p in range(1, ORDER + 1):
                row = row + ((2 * GAMMA) ** p) / math.factorial(p) * products**p
            rows.append(row * math.exp(-2 * GAMMA))
        return torch.stack(rows)

    distance = torch.dist(kernel(F.normalize(e_s)), kernel(F.normalize(e_t)), 2)
    return distance**2 / len(e_s) ** 2


def plain_pkt(e_s: Tensor, e_t: Tensor) -> Tensor:
    """The authors' lines, with a boolean index for what is not a number."""

    def probabilities(e: Tensor) -> Tensor:
        e = e / (torch.sqrt(torch.sum(e**2, dim=1, keepdim=True)) + 1e-7)
        e = e.masked_fill(e != e, 0)
        similarity = (torch.mm(e, e.transpose(0, 1)) + 1.0) / 2.0
        return similarity / torch.sum(similarity, dim=1, keepdim=True)

    p, q = probabilities(e_t), probabilities(e_s)
    return torch.mean(p * torch.log((p + 1e-7) / (q + 1e-7)))


def plain_rkd(e_s: Tensor, e_t: Tensor) -> Tensor:
    """The authors' lines: B x B x D differences and boolean indices."""

    def distances(e: Tensor) -> Tensor:
        squares = e.pow(2).sum(dim=1)
        d = (squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * e @ e.t()).clamp(min=1e-12).sqrt()
        d = d.clone()
        d[range(len(e)), range(len(e))] = 0
        return d / d[d > 0].mean()

    def angles(e: Tensor) -> Tensor:
        directions = F.normalize(e.unsqueeze(0) - e.unsqueeze(1), p=2, dim=2)
        return torch.bmm(directions, directions.transpose(1, 2)).view(-1)

    distance = F.smooth_l1_loss(distances(e_s), distances(e_t))
    return 25.0 * distance + 50.0 * F.smooth_l1_loss(angles(e_s), angles(e_t))


@functools.cache
def contrast(width: int, n_data: int, device: torch.device, dtype: torch.dtype) -> CRDContrast:
    """CRD with random banks that stay as they are."""
    torch.manual_seed(0)
    return CRDContrast(width, width, n_data).to(device, dtype).eval()


def ours_crd(e_s: Tensor, e_t: Tensor, index: Tensor, candidates: Tensor) -> Tensor:
    module = contrast(e_s.shape[1], sizes(len(e_s))[0], e_s.device, e_s.dtype)
    loss: Tensor = module(e_s, e_t, index, candidates)
    return loss


def plain_crd(e_s: Tensor, e_t: Tensor, index: Tensor, candidates: Tensor) -> Tensor:
    """The authors' lines: B x (K + 1) x D rows of each bank."""
    n_data = sizes(len(e_s))[0]
    module = contrast(e_s.shape[1], n_data, e_s.device, e_s.dtype)

    def unit(x: Tensor) -> Tensor:
        return x / x.pow(2).sum(1, keepdim=True).pow(0.5)

    def direction(anchors: Tensor, bank: Tensor) -> Tensor:
        rows = torch.index_select(bank, 0, candidates.view(-1)).view(*candidates.shape, -1)
        out = torch.exp(torch.bmm(rows, anchors.unsqueeze(2)).squeeze(2) / CRD_TEMPERATURE)
        out = out / (out.mean() * n_data).item()
        chance = (candidates.shape[1] - 1) / n_data
        positive = torch.log(out[:, 0] / (out[:, 0] + chance + 1e-7))
        negatives = torch.log(torch.full_like(out[:, 1:], chance) / (out[:, 1:] + chance + 1e-7))
        return -(positive.sum(0) + negatives.reshape(-1, 1).sum(0)).squeeze(0) / len(anchors)

    a_s = unit(module.embed.student(e_s))
    a_t = unit(module.embed.teacher(e_t))
    return direction(a_s, module.bank_t) + direction(a_t, module.bank_s)


@functools.cache
def attention(
    width: int, batch_size: int, device: torch.device, dtype: torch.dtype
) -> CrossStageAttention:
    """SemCKD's modules for the stages that `stages` makes."""
    torch.manual_seed(0)
    channels = [width * 2**k for k in range(3)]
    return CrossStageAttention(channels, channels, batch_size).to(device, dtype)


def ours_semckd(*features: Tensor) -> Tensor:
    first = features[0]
    loss: Tensor = attention(first.shape[1], len(first), first.device, first.dtype)(*features)
    return loss


def plain_semckd(*features: Tensor) -> Tensor:
    """The authors' lines: queries, keys and errors one after the other."""
    first, f_s, f_t = features[0], features[:3], features[3:]
    batch_size = len(first)
    module = attention(first.shape[1], batch_size, first.device, first.dtype)

    def unit(x: Tensor) -> Tensor:
        return x / x.pow(2).sum(1, keepdim=True).pow(0.5)

    def similarity(feature: Tensor) -> Tensor:
        rows = feature.reshape(batch_size, -1)
        return torch.matmul(rows, rows.t())

    query = [unit(module.queries[i](similarity(f_s[i])))[:, None, :] for i in range(3)]
    key = [unit(module.keys[j](similarity(f_t[j])))[:, :, None] for j in range(3)]
    weight = F.softmax(torch.bmm(torch.cat(query, 1), torch.cat(key, 2)), dim=-1)
    errors = first.new_zeros(batch_size, 3, 3)
    for i in range(3):
        for j in range(3):
            source, target = f_s[i], f_t[j]
            height_s, height_t = source.shape[2], target.shape[2]
            if height_s > height_t:
                source = F.adaptive_avg_pool2d(source, (height_t, height_t))
            else:
                target = F.adaptive_avg_pool2d(target, (height_s, height_s))
            error = F.mse_loss(module.projections[3 * i + j](source), target, reduction="none")
            errors[:, i, j] = error.reshape(batch_size, -1).mean(-1)
    return (weight * errors).sum() / (1.0 * batch_size * 3)


FORMS: tuple[Forms, ...] = (
    Forms("sp", sp, plain_sp, maps, axis="channels", widths=(16, 64, 256)),
    Forms("cc", cc, plain_cc, embeddings, axis="D", widths=(64, 256, 2048)),
    Forms(
        method="cckd",
        ours=lambda e_s, e_t: cckd(e_s, e_t, gamma=GAMMA, order=ORDER),
        plain=plain_cckd,
        inputs=embeddings,
        axis="D",
        widths=(64, 256, 2048),
    ),
    Forms("pkt", pkt, plain_pkt, embeddings, axis="D", widths=(64, 256, 2048)),
    Forms(
        method="rkd",
        ours=lambda e_s, e_t: rkd(e_s, e_t, distance_weight=25.0, angle_weight=50.0),
        plain=plain_rkd,
        inputs=embeddings,
        axis="D",
        widths=(64, 256, 2048),
    ),
    Forms("crd", ours_crd, plain_crd, remembered, axis="D", widths=(64, 256, 2048)),
    Forms("semckd", ours_semckd, plain_semckd, stages, axis="channels", widths=(8, 16)),
)
