"""Times the losses beside their straightforward forms and prints a Markdown table.

    python scripts/bench_losses.py

Forward + backward, batch 64, float32, one thread. The two forms take turns, and each number is a
median, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import dkd, kd, ldrld, rsd

BATCH_SIZE, DEPTH, TEMPERATURE, ROUNDS = 64, 7, 4.0, 30
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def masked_kl(z_s: Tensor, z_t: Tensor, outside: Tensor) -> Tensor:
    log_q = F.log_softmax(z_s / TEMPERATURE - 1000 * outside, dim=1)
    p = F.softmax(z_t / TEMPERATURE - 1000 * outside, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean") * TEMPERATURE**2


def plain_kd(z_s: Tensor, z_t: Tensor, y: Tensor) -> Tensor:
    return masked_kl(z_s, z_t, torch.zeros_like(z_s))


def plain_dkd(z_s: Tensor, z_t: Tensor, y: Tensor) -> Tensor:
    is_target = torch.zeros_like(z_s).scatter(1, y.unsqueeze(1), 1)

    def two_way(z: Tensor) -> Tensor:
        p = F.softmax(z / TEMPERATURE, dim=1)
        return torch.stack([(p * is_target).sum(1), (p * (1 - is_target)).sum(1)], dim=1)

    tckd = F.kl_div(two_way(z_s).log(), two_way(z_t), reduction="batchmean") * TEMPERATURE**2
    return tckd + 8 * masked_kl(z_s, z_t, is_target)


def plain_ldrld(z_s: Tensor, z_t: Tensor, y: Tensor) -> Tensor:
    """One masked softmax a pair."""
    top = z_s.topk(DEPTH, dim=1).indices

    def outside(*ranks: int) -> Tensor:
        return torch.ones_like(z_s).scatter(1, top[:, list(ranks)], 0)

    terms = [masked_kl(z_s, z_t, outside(*range(DEPTH)))]
    for i, j in itertools.combinations(range(DEPTH), 2):
        weight = 2 * math.exp(-0.05 * (i + j + 2)) / (1.5 + j - i)
        terms.append(weight * masked_kl(z_s, z_t, outside(i, j)))
    rest = masked_kl(z_s, z_t, 1 - outside(*range(DEPTH)))
    return 10.5 * sum(terms, torch.zeros(())) / len(terms) + 7 * rest


def plain_rsd(e_s: Tensor, e_t: Tensor, y: Tensor) -> Tensor:
    """The D x D matrix and a boolean index."""
    a = (e_s - e_s.mean(0)) / (e_s.std(0, unbiased=False) + 1e-5)
    b = (e_t - e_t.mean(0)) / (e_t.std(0, unbiased=False) + 1e-5)
    r = b.T @ a / len(a)
    diagonal = torch.eye(len(r), dtype=torch.bool)
    return (r[diagonal] - 1).square().sum() + 0.01 * r[~diagonal].square().sum()


LOGIT_LOSSES: dict[str, tuple[Loss, Loss]] = {
    "kd": (lambda s, t, y: kd(s, t, temperature=TEMPERATURE), plain_kd),
    "dkd": (
        lambda s, t, y: dkd(s, t, y, alpha=1.0, beta=8.0, temperature=TEMPERATURE),
        plain_dkd,
    ),
    f"ldrld d={DEPTH}": (
        lambda s, t, y: ldrld(s, t, alpha=10.5, beta=7.0, depth=DEPTH, temperature=TEMPERATURE),
        plain_ldrld,
    ),
}
RSD: tuple[Loss, Loss] = (lambda s, t, y: rsd(s, t, kappa=0.01), plain_rsd)


def interleaved_ms(forms: tuple[Loss, Loss], width: int) -> tuple[float, float]:
    """Returns the median milliseconds of each form, after checking that their values agree."""
    torch.manual_seed(0)
    student = (3 * torch.randn(BATCH_SIZE, width)).requires_grad_()
    teacher, target = 4 * torch.randn(BATCH_SIZE, width), torch.randint(width, (BATCH_SIZE,))
    torch.testing.assert_close(
        *(form(student, teacher, target) for form in forms), rtol=1e-3, atol=0
    )
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for form, seen in zip(forms, times, strict=True):
            start = time.perf_counter()
            torch.autograd.grad(form(student, teacher, target), student)
            seen.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    torch.set_num_threads(1)
    print("| loss | width | ms | straightforward ms | ratio |\n|---|---|---|---|---|")
    cases = [
        (name, forms, f"C={c}", c) for name, forms in LOGIT_LOSSES.items() for c in (100, 1000)
    ]
    cases += [("rsd", RSD, f"D={d}", d) for d in (64, 256, 1024)]
    for name, forms, label, width in cases:
        ours, plain = interleaved_ms(forms, width)
        print(f"| {name} | {label} | {ours:.2f} | {plain:.2f} | {plain / ours:.1f}x |")


if __name__ == "__main__":
    main()
