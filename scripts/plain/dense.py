"""Straightforward forms of the dense methods."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import dense
from plain._form import Forms

DEPTH, TEMPERATURE, CONTRAST_TEMPERATURE, GRID = 3, 4.0, 0.1, 8


def maps(
    width: int,
    *,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    grid: int = GRID,
) -> tuple[Tensor, ...]:
    """Student and teacher maps of ``width`` channels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, width, grid, grid)
    student = 2 * torch.randn(shape, generator=generator, dtype=dtype)
    return student, 2 * torch.randn(shape, generator=generator, dtype=dtype)


def small_maps(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Maps of 4 x 4 positions, for what compares all images' pixels with each other."""
    return maps(width, batch_size=batch_size, dtype=dtype, seed=seed, grid=4)


def labelled(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Maps, and labels of up to 19 classes at twice their resolution, -1 where there is none."""
    shape = (batch_size, 2 * GRID, 2 * GRID)
    generator = torch.Generator().manual_seed(seed + 1)
    target = torch.randint(-1, min(width, 19), shape, generator=generator)
    return *maps(width, batch_size=batch_size, dtype=dtype, seed=seed), target


def sharp(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Labelled maps of logits so large that some labels are sure."""
    z_s, z_t, target = labelled(width, batch_size=batch_size, dtype=dtype, seed=seed)
    return 4 * z_s, 4 * z_t, target


def masked(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Maps and 8 masks an image."""
    generator = torch.Generator().manual_seed(seed + 1)
    shape = (batch_size, 8, GRID, GRID)
    masks = torch.rand(shape, generator=generator, dtype=dtype)
    return *maps(width, batch_size=batch_size, dtype=dtype, seed=seed), masks


def remembered(
    width: int, *, batch_size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, ...]:
    """Unit pixels of 16 positions an image, 1024 remembered ones, and which pixels count."""
    generator = torch.Generator().manual_seed(seed)
    n = 16 * batch_size
    x_s, x_t, memory = (
        F.normalize(torch.randn(rows, width, generator=generator, dtype=dtype))
        for rows in (n, n, 1024)
    )
    return x_s, x_t, memory, torch.rand(n, generator=generator) < 0.9


def plain_pixel_kd(z_s: Tensor, z_t: Tensor) -> Tensor:
    rows_s, rows_t = (z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]) for z in (z_s, z_t))
    p, q = F.softmax(rows_t / TEMPERATURE, dim=1), F.softmax(rows_s / TEMPERATURE, dim=1)
    return TEMPERATURE**2 * (p * (p.log() - q.log())).sum() / len(rows_s)


def plain_feature_mse(f_s: Tensor, f_t: Tensor) -> Tensor:
    return ((f_s - f_t) ** 2).mean()


def plain_cwd(f_s: Tensor, f_t: Tensor) -> Tensor:
    images, channels, _, _ = f_s.shape
    q, p = (F.softmax(f.flatten(2) / TEMPERATURE, dim=2) for f in (f_s, f_t))
    return TEMPERATURE**2 * (p * (p.log() - q.log())).sum() / (images * channels)


def plain_skd_pair(f_s: Tensor, f_t: Tensor) -> Tensor:
    total = torch.zeros((), dtype=f_s.dtype)
    for one_s, one_t in zip(f_s, f_t, strict=True):
        grams = []
        for f in (one_s, one_t):
            nodes = F.max_pool2d(f, 2, ceil_mode=True).flatten(1)
            unit = nodes / nodes.norm(dim=0)
            grams.append(unit.T @ unit)
        total = total + ((grams[0] - grams[1]) ** 2).mean()
    return total / len(f_s)


def plain_skd_pixel(z_s: Tensor, z_t: Tensor) -> Tensor:
    total = torch.zeros((), dtype=z_s.dtype)
    for one_s, one_t in zip(z_s, z_t, strict=True):
        total = total - (F.softmax(one_t, dim=0) * F.log_softmax(one_s, dim=0)).sum()
    return total / (z_s.shape[2] * z_s.shape[3])


def ours_skd_holistic(z_s: Tensor, z_t: Tensor) -> Tensor:
    return dense.skd_generator(z_s) + dense.skd_discriminator(z_s, z_t)


def plain_skd_holistic(z_s: Tensor, z_t: Tensor) -> Tensor:
    real, fake = torch.relu(1.0 - z_t).mean(), torch.relu(1.0 + z_s).mean()
    return -z_s.mean() + real + fake


def plain_ifvd(f_s: Tensor, f_t: Tensor, target: Tensor) -> Tensor:
    """A mask over the whole map a class, as the authors' code has it."""
    label = F.interpolate(target.unsqueeze(1).double(), f_s.shape[2:], mode="nearest").to(f_s.dtype)
    centres = []
    for f in (f_s, f_t):
        centre = f.clone()
        for number in range(19):
            mask = (label == number).to(f.dtype)
            mean = (mask * f).sum((2, 3)) / (mask.sum((2, 3)) + 1e-6)
            centre = (1 - mask) * centre + mask * mean[:, :, None, None]
        centres.append(F.cosine_similarity(f, centre, dim=1))
    return F.mse_loss(centres[0], centres[1])


def plain_cirkd_minibatch(f_s: Tensor, f_t: Tensor) -> Tensor:
    """One product and one KL divergence an image pair, as the authors' code has it."""
    unit_s, unit_t = (F.normalize(f, dim=1).flatten(2) for f in (f_s, f_t))
    total = torch.zeros((), dtype=f_s.dtype)
    for i, j in itertools.product(range(len(f_s)), repeat=2):
        log_q = F.log_softmax(unit_s[i].T @ unit_s[j] / CONTRAST_TEMPERATURE, dim=1)
        p = F.softmax(unit_t[i].T @ unit_t[j] / CONTRAST_TEMPERATURE, dim=1)
        total = total + F.kl_div(log_q, p, reduction="batchmean")
    return total / len(f_s) ** 2


def plain_cirkd_memory(x_s: Tensor, x_t: Tensor, memory: Tensor, valid: Tensor) -> Tensor:
    log_q = F.log_softmax(x_s[valid] @ memory.T / CONTRAST_TEMPERATURE, dim=1)
    p = F.softmax(x_t[valid] @ memory.T / CONTRAST_TEMPERATURE, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean")


def plain_maskd(z_s: Tensor, z_t: Tensor, masks: Tensor) -> Tensor:
    """Both maps once for each mask, as the authors' code has it."""
    masked_s, masked_t = (z.unsqueeze(1) * masks.unsqueeze(2) for z in (z_s, z_t))
    error = ((masked_s - masked_t) ** 2).sum((3, 4))
    return 0.5 * (error / (masks.sum((2, 3)).unsqueeze(-1) + 1e-5)).mean()


def plain_dist_dense(z_s: Tensor, z_t: Tensor) -> Tensor:
    rows_s, rows_t = (z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]) for z in (z_s, z_t))
    p_s, p_t = F.softmax(rows_s, dim=1), F.softmax(rows_t, dim=1)

    def correlation(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)

    inter = 1 - correlation(p_s, p_t).mean()
    return inter + 1 - correlation(p_s.T.contiguous(), p_t.T.contiguous()).mean()


def ours_rdd(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    return dense.rdd_stage_2(z_s, z_t, target, min_kept=target.numel() // 20)


def plain_rdd(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    """Sorts the probabilities and indexes with masks, as the authors' code has it."""
    full_s, full_t = (
        F.interpolate(z, target.shape[1:], mode="bilinear", align_corners=True) for z in (z_s, z_t)
    )
    labels, hard = target.flatten(), []
    for z in (full_s, full_t):
        p = F.softmax(z, dim=1).transpose(0, 1).flatten(1).masked_fill(labels == -1, 1)
        of_label = p[labels.clamp(min=0), torch.arange(len(labels))]
        kept = of_label[of_label.argsort()[target.numel() // 20 - 1]].item()
        hard.append((of_label <= max(0.7, kept)) & (labels != -1))
    disputed = labels.masked_fill(~(hard[0] ^ hard[1]), -1).view_as(target)
    return F.cross_entropy(full_s, disputed, ignore_index=-1)


def plain_aicsd(z_s: Tensor, z_t: Tensor) -> Tensor:
    """One KL divergence a pair of classes."""
    matrices = []
    for z in (z_s, z_t):
        p = F.softmax(z.flatten(2), dim=2)
        rows = []
        for i in range(z.shape[1]):
            row = [
                (p[:, i] * (p[:, i].log() - p[:, j].log())).sum() / len(z)
                for j in range(z.shape[1])
            ]
            rows.append(torch.stack(row) / torch.stack(row).norm())
        matrices.append(torch.stack(rows))
    return ((matrices[0] - matrices[1]) ** 2).mean() / len(z_s)


def ours_attnfd(r_s: Tensor, f_t: Tensor) -> Tensor:
    return dense.attnfd(r_s, dense.attnfd_teacher(f_t))


def plain_attnfd(r_s: Tensor, f_t: Tensor) -> Tensor:
    size = f_t.shape[2:]
    channel = torch.sigmoid(F.avg_pool2d(f_t, size) + F.max_pool2d(f_t, size))
    r_t = f_t * channel.expand_as(f_t)
    pooled = torch.cat((torch.max(r_t, 1)[0].unsqueeze(1), torch.mean(r_t, 1).unsqueeze(1)), dim=1)
    r_t = r_t * torch.sigmoid(pooled.sum(1, keepdim=True))
    difference = r_s / torch.norm(r_s, p=2) - r_t / torch.norm(r_t, p=2)
    return difference.pow(2).sum() / len(r_s)


def ours_bpkd(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    edges = dense.bpkd_edges(target, classes=z_s.shape[1], grid=(GRID, GRID)).to(z_s.dtype)
    edge = dense.bpkd_edge(z_s, z_t, edges, temperature=TEMPERATURE)
    return 50 * edge + 20 * dense.bpkd_body(z_s, z_t, edges, temperature=TEMPERATURE)


def plain_bpkd(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    """One class after the other."""
    classes, total = z_s.shape[1], torch.zeros((), dtype=z_s.dtype)
    edges = []
    for number in range(classes):
        inside = (target == number).to(z_s.dtype).unsqueeze(1)
        dilated = F.max_pool2d(inside, 7, 1, 3)
        eroded = 1 - F.max_pool2d(1 - inside, 7, 1, 3)
        edge = (dilated - eroded) * (target >= 0).unsqueeze(1)
        edges.append(F.avg_pool2d(edge, target.shape[1] // GRID))
    mask = torch.cat(edges, dim=1)
    p, q = (F.softmax(z * mask / TEMPERATURE, dim=1) for z in (z_t, z_s))
    kl = (p * (p.log() - q.log())).sum(1)
    for number in range(classes):
        counts = (mask[:, number] > 0).sum((1, 2)).clamp(min=1)
        total = total + 50 * 2.0 * ((kl * mask[:, number]).sum((1, 2)) / counts).mean()
    p, q = (F.softmax((z * (1 - mask)).flatten(2) / TEMPERATURE, dim=2) for z in (z_t, z_s))
    body = (p * (p.log() - q.log())).sum() / (classes * len(z_s))
    return TEMPERATURE**2 * (total + 20 * body)


def plain_rld_candidate(z_s: Tensor, z_t: Tensor, target: Tensor) -> Tensor:
    """Takes the labelled pixels out, then masks with -1e9, as the authors' code has it."""
    label = target[:, ::2, ::2].flatten()
    rows_s, rows_t = (z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]) for z in (z_s, z_t))
    s, t, y = rows_s[label != -1], rows_t[label != -1], label[label != -1].unsqueeze(1)
    p_s = F.softmax(s, dim=1).gather(1, y)
    p_t = F.softmax(t, dim=1).amax(1, keepdim=True)
    log_q = torch.cat([p_s, 1 - p_s], dim=1).log()
    sure = F.kl_div(log_q, torch.cat([p_t, 1 - p_t], dim=1), reduction="batchmean")
    above = t >= t.gather(1, y)
    log_q = F.log_softmax((s / TEMPERATURE).masked_fill(above, -1e9), dim=1)
    p = F.softmax((t / TEMPERATURE).masked_fill(above, -1e9), dim=1)
    return sure + 4 * TEMPERATURE**2 * F.kl_div(log_q, p, reduction="batchmean")


def plain_ldrld_candidate(z_s: Tensor, z_t: Tensor) -> Tensor:
    """One masked softmax a pair of ranks, as the authors' code has it."""
    s, t = (z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]) for z in (z_s, z_t))
    top = s.topk(DEPTH, dim=1).indices

    def masked_kl(outside: Tensor) -> Tensor:
        p = F.softmax(t / TEMPERATURE - 1000.0 * outside, dim=1)
        log_q = F.log_softmax(s / TEMPERATURE - 1000.0 * outside, dim=1)
        return F.kl_div(log_q, p, reduction="batchmean") * TEMPERATURE**2

    local = masked_kl(torch.ones_like(t).scatter(1, top, 0))
    for i, j in itertools.combinations(range(DEPTH), 2):
        weight = 2.0 * math.exp(-0.05 * (i + j + 2)) / (1.5 + j - i)
        local = local + weight * masked_kl(torch.ones_like(t).scatter(1, top[:, [i, j]], 0))
    rest = masked_kl(torch.zeros_like(t).scatter(1, top, 1))
    return 10.5 * local / (DEPTH * (DEPTH - 1) // 2 + 1) + 7.0 * rest


AT_T: dict[str, Any] = {"temperature": TEMPERATURE}
CONTRAST: dict[str, Any] = {"temperature": CONTRAST_TEMPERATURE}
RLD: dict[str, Any] = {"alpha": 1.0, "beta": 4.0, "alpha_temperature": 1.0}
LDRLD: dict[str, Any] = {"alpha": 10.5, "beta": 7.0, "depth": DEPTH}
C, CHANNELS = ("C", (19, 150)), ("channels", (16, 64, 256))


# fmt: off
FORMS: tuple[Forms, ...] = (
    Forms("pixel_kd", lambda s, t: dense.pixel_kd(s, t, **AT_T), plain_pixel_kd, maps, *C),
    Forms("feature_mse", dense.feature_mse, plain_feature_mse, maps, *CHANNELS),
    Forms("cwd", lambda s, t: dense.cwd(s, t, **AT_T), plain_cwd, maps, *CHANNELS),
    Forms("skd_pair", dense.skd_pair, plain_skd_pair, maps, *CHANNELS),
    Forms("skd_pixel", dense.skd_pixel, plain_skd_pixel, maps, *C),
    Forms("skd_holistic", ours_skd_holistic, plain_skd_holistic, maps, *C),
    Forms("ifvd", lambda s, t, y: dense.ifvd(s, t, y, classes=19), plain_ifvd, labelled,
          *CHANNELS),
    Forms("cirkd_minibatch", lambda s, t: dense.cirkd_minibatch(s, t, **CONTRAST),
          plain_cirkd_minibatch, small_maps, *CHANNELS),
    Forms("cirkd_memory", lambda *x: dense.cirkd_memory(*x, **CONTRAST), plain_cirkd_memory,
          remembered, *CHANNELS),
    Forms("maskd", dense.maskd, plain_maskd, masked, *C),
    Forms("dist_dense", lambda s, t: dense.dist_dense(s, t, temperature=1.0, beta=1.0, gamma=1.0),
          plain_dist_dense, maps, *C),
    Forms("rdd", ours_rdd, plain_rdd, sharp, *C),
    Forms("aicsd", dense.aicsd, plain_aicsd, maps, "C", (19, 50)),
    Forms("attnfd", ours_attnfd, plain_attnfd, maps, *CHANNELS),
    Forms("bpkd", ours_bpkd, plain_bpkd, labelled, *C),
    Forms("rld_candidate", lambda s, t, y: dense.rld_candidate(s, t, y, **AT_T, **RLD),
          plain_rld_candidate, labelled, *C),
    Forms("ldrld_candidate", lambda s, t: dense.ldrld_candidate(s, t, **AT_T, **LDRLD),
          plain_ldrld_candidate, maps, *C),
)
# fmt: on
