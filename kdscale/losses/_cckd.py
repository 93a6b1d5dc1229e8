"""CCKD: match a kernel matrix over the batch, as the paper on correlation congruence says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._cc import LinearPair
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision
from kdscale.losses._sp import require_same_batch
from kdscale.outputs import present
from kdscale.records import Value

Variant = Literal["paper", "torchdistill"]


@full_precision
def cckd(
    e_s: Tensor, e_t: Tensor, *, gamma: float, order: int, variant: Variant = "paper"
) -> Tensor:
    """Returns ‖K_s - K_t‖² / B², a scalar: the distance of two kernel matrices over the batch.

    K_ij = Σ_{p=0..order} exp(-2 gamma) (2 gamma)^p / p! ⟨x_i, x_j⟩^p is the Taylor expansion of the
    Gaussian kernel exp(-gamma ‖x_i - x_j‖²) of rows x with norm 1. Reduction: sum of squares over
    B². No temperature. Zero at student = teacher; with variant ``paper`` also for features that
    are a rotation or a positive multiple of the teacher's.

    Args:
        e_s: Student features ``[B, D_s]``.
        e_t: Teacher features ``[B, D_t]``; nothing is detached here.
        gamma: Width of the Gaussian kernel, > 0.
        order: P, the highest power in the expansion, >= 1.
        variant: ``paper`` divides each row by its norm and squares the Frobenius norm;
            ``torchdistill`` does neither: ‖K_s - K_t‖ / B² of the raw rows.

    Raises:
        ValueError: The two batches differ in size.

    Source:
        Peng et al.: Correlation Congruence for Knowledge Distillation, ICCV 2019, arXiv
        1904.01802. No official code is public; torchdistill ``losses/mid_level.py`` (CCKDLoss) is
        the known implementation. It departs from the paper as ``variant`` says, and its ImageNet
        configuration has gamma 0.4, order 2, weight 0.003 beside KD at T = 1, the defaults here.
        What most tables call "CC" is neither, see `cc`. The paper's terms for single images (KD,
        or MSE of the features) are methods of their own: add `kd` to the objective.
    """
    require_same_batch(e_s, e_t)
    if variant == "paper":
        e_s, e_t = F.normalize(e_s), F.normalize(e_t)
    k_s, k_t = _kernel(e_s, gamma, order), _kernel(e_t, gamma, order)
    if variant == "paper":
        return F.mse_loss(k_s, k_t)
    distance: Tensor = torch.linalg.vector_norm(k_s - k_t)
    return distance / len(e_s) ** 2


def _kernel(rows: Tensor, gamma: float, order: int) -> Tensor:
    """Returns the expansion without its constant (p = 0), which no difference keeps."""
    products = rows @ rows.T
    factors = [
        math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) for p in range(order + 1)
    ]
    # Horner's rule, from the highest power down.
    kernel = products * factors[order]
    for factor in reversed(factors[1:order]):
        kernel = (kernel + factor) * products
    return kernel


class _Term(nn.Module):
    """CCKD between the linearly mapped embeddings."""

    def __init__(self, maps: LinearPair, gamma: float, order: int, variant: Variant) -> None:
        super().__init__()
        self.maps = maps
        self.gamma, self.order, self.variant = gamma, order, variant

    def forward(self, batch: Batch) -> Tensor:
        return cckd(
            self.maps.of_student(present(batch.student.embedding)),
            self.maps.of_teacher(present(batch.teacher.embedding)),
            gamma=self.gamma,
            order=self.order,
            variant=self.variant,
        )


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    maps = LinearPair(
        shapes.student.embedding, shapes.teacher.embedding, int(hyperparameters["dims"])
    )
    gamma, order = float(hyperparameters["gamma"]), int(hyperparameters["order"])
    variant: Variant = "paper" if hyperparameters["variant"] == "paper" else "torchdistill"
    return _Term(maps, gamma, order, variant)


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "cckd compares the images of a batch with each other, so the batch must hold at least "
            f"2, but got {shapes.batch_size}"
        )
    return ""


CCKD = Method(
    name="cckd",
    title="Correlation congruence, the paper's kernel",
    source="Peng et al., ICCV 2019, arXiv 1904.01802",
    reads=("embedding", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "gamma", 0.4, "width of the Gaussian kernel", low=0, low_open=True, search=(0.1, 1)
        ),
        Hyperparameter(
            "order", 2, "highest power of the kernel's Taylor expansion", low=1, search=(1, 5)
        ),
        Hyperparameter(
            "variant",
            "paper",
            "paper: unit rows, squared norm; torchdistill: raw rows, plain norm",
            choices=("paper", "torchdistill"),
        ),
        Hyperparameter("dims", 128, "dimensions that both embeddings are mapped to", low=1),
    ),
    build=_build,
    needs=needs_of_both("embedding"),
    refuse=_refuse,
    couples_batch=True,
    weight=0.003,
)
