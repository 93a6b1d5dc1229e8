"""RSD: make student and teacher features correlate dimension by dimension, and only so."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    Needs,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, require_same_shape, with_gradient
from kdscale.outputs import present
from kdscale.records import Value

STD_OFFSET = 1e-5


@full_precision
def rsd(e_s: Tensor, e_t: Tensor, *, kappa: float) -> Tensor:
    """Returns Σ_i (R_ii - 1)² + kappa Σ_{i≠j} R_ij², a scalar.

    R = ẽ_tᵀ ẽ_s / B is the D x D correlation matrix, where ẽ is e with each column centred and
    divided by its biased standard deviation over the batch + 1e-5. Batch statistics are
    differentiated. Reduction: **sum** over all D² entries, so the value grows with D; R itself is a
    batch mean. No temperature. At student = teacher the first sum is 0 (up to the 1e-5) but the
    second one is not, unless the teacher's columns are uncorrelated. Uncorrelated noise gives
    about kappa D² / B, so small batches blur the second term.

    For D > B the off-diagonal sum comes from B x B Gram matrices, and no D x D matrix is made.

    Args:
        e_s: Student features ``[B, D]``: the projected embedding or the logits.
        e_t: Teacher features ``[B, D]``; nothing is detached here.
        kappa: Weight of the off-diagonal entries.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Zhang et al.: Cross-Architecture Distillation Made Simple with Redundancy Suppression,
        ICCV 2025, arXiv 2507.21844, eq. 4; official code VISION-SJTU/RSD ``distillers/rsd.py``.
        The paper's algorithm 1 averages over the D² entries where the code sums: the code is
        followed, so lambda here = lambda of the paper / D². The code takes statistics per GPU;
        the objective gathers the global batch first.
    """
    require_same_shape(e_s, e_t, "[B, D]")
    return with_gradient(
        functools.partial(_composed, kappa=kappa),
        functools.partial(_value_and_gradient, kappa=kappa),
        e_s,
        e_t,
    )


def _composed(e_s: Tensor, e_t: Tensor, kappa: float) -> Tensor:
    """Returns `rsd` as a composition of differentiable operators."""
    # std has gradient 0 at a constant column, where a square root's would be infinite.
    a, b = ((e - e.mean(dim=0)) / (e.std(dim=0, correction=0) + STD_OFFSET) for e in (e_s, e_t))
    diagonal = (a * b).mean(dim=0)
    total = (a * _correlate(b, a)).sum() / len(a) ** 2
    return (diagonal - 1).square().sum() + kappa * (total - diagonal.square().sum())


def _value_and_gradient(e_s: Tensor, e_t: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Returns `rsd` and its gradient in the student's features ``[B, D]``.

    With a, b the standardised student and teacher and r the diagonal of R = bᵀa / B, the value is
    Σ (r - 1)² - kappa Σ r² + kappa ‖R‖², where ‖R‖² = Σ a ⊙ bbᵀa / B². Its gradient in a is
    g = (2 / B) b ⊙ (r - 1 - kappa r) + (2 kappa / B²) bbᵀa, rows of [D] multiplying columns.
    Through a = (e - mean) / (σ + 1e-5) this becomes (g - mean_b g) / (σ + 1e-5) - a ⊙ Σ_b(g ⊙ a) /
    (B σ). The columns of b are centred, so mean_b g = 0, and Σ_b(g ⊙ a) is made of r and of the
    column sums of a ⊙ bbᵀa, which the value has already.
    """
    batch_size = len(e_s)
    a, std = _standardise(e_s)
    b, _ = _standardise(e_t)
    related = _correlate(b, a)
    diagonal = (a * b).mean(dim=0)
    squares = (a * related).sum(dim=0).mul_(kappa / batch_size**2)  # kappa ‖R‖² by column
    off_target = (diagonal - 1).square_()
    value = off_target.addcmul_(diagonal, diagonal, value=-kappa).add_(squares).sum()

    pull = diagonal * (1 - kappa) - 1
    half = (diagonal * pull).add_(squares)  # of Σ_b(g ⊙ a)
    scale = 2 / batch_size / (std + STD_OFFSET)
    gradient = related.mul_(scale * (kappa / batch_size)).addcmul_(b, pull * scale)
    # A constant column has a = 0 and takes nothing through its deviation.
    through_std = half.mul_(2 / batch_size) / std.clamp_min(torch.finfo(std.dtype).tiny)
    return value, gradient.addcmul_(a, through_std, value=-1)


def _standardise(e: Tensor) -> tuple[Tensor, Tensor]:
    """Returns e with each column centred and divided by its deviation + 1e-5, and deviations."""
    centred = e - e.mean(dim=0)
    std = centred.square().mean(dim=0).sqrt_()
    return centred.div_(std + STD_OFFSET), std


def _correlate(b: Tensor, a: Tensor) -> Tensor:
    """Returns bbᵀa ``[B, D]`` by way of the smaller of bbᵀ and bᵀa."""
    batch_size, dims = a.shape
    return (b @ b.T) @ a if dims > batch_size else b @ (b.T @ a)


class AAD(nn.Module):
    """RSD's decoupler: Linear -> BatchNorm1d -> GELU -> Linear, both linear maps without bias.

    It carries the student's embedding to the teacher's size, is trained with the student and
    thrown away after training, so that decorrelation does not bind the student's own features.

    Args:
        student_dims: D_s of the student's embedding.
        teacher_dims: D_t of the teacher's embedding.
        gamma: The hidden size is gamma x D_s.

    Source:
        As `rsd`, section 3.3. Weights start from a normal distribution with standard deviation
        0.02, truncated at ±2; BatchNorm starts at weight 1, bias 0. GELU is the exact one (erf).
    """

    def __init__(self, student_dims: int, teacher_dims: int, gamma: int = 2) -> None:
        super().__init__()
        hidden = gamma * student_dims
        self.expand = nn.Linear(student_dims, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.project = nn.Linear(hidden, teacher_dims, bias=False)
        nn.init.trunc_normal_(self.expand.weight, std=0.02)
        nn.init.trunc_normal_(self.project.weight, std=0.02)

    @full_precision
    def forward(self, embedding: Tensor) -> Tensor:
        """Returns the projected embedding ``[B, D_t]``.

        Args:
            embedding: The student's embedding ``[B, D_s]``; B > 1 while training.
        """
        hidden: Tensor = self.norm(self.expand(embedding))
        projected: Tensor = self.project(F.gelu(hidden))
        return projected


class _EmbeddingTerm(nn.Module):
    """lambda x RSD between the decoupled student embedding and the teacher's embedding."""

    def __init__(self, aad: AAD, lambda_: float, kappa: float) -> None:
        super().__init__()
        self.aad = aad
        self.lambda_ = lambda_
        self.kappa = kappa

    def forward(self, batch: Batch) -> Tensor:
        projected = self.aad(present(batch.student.embedding))
        return self.lambda_ * rsd(projected, present(batch.teacher.embedding), kappa=self.kappa)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    lambda_ = float(hyperparameters["lambda"])
    kappa = float(hyperparameters["kappa"])
    if hyperparameters["variant"] == "embedding":
        aad = AAD(shapes.student.embedding, shapes.teacher.embedding, int(hyperparameters["gamma"]))
        return _EmbeddingTerm(aad, lambda_, kappa)

    def term(batch: Batch) -> Tensor:
        return lambda_ * rsd(batch.student.logits, batch.teacher.logits, kappa=kappa)

    return term


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    if hyperparameters["variant"] == "embedding":
        return Needs(frozenset({"embedding"}), frozenset({"embedding"}))
    return Needs()


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "rsd normalises over the batch, so the global batch must hold at least 2 images "
            f"(32 or more are advised), but got {shapes.batch_size}"
        )
    return refuse_unequal_classes(shapes) if hyperparameters["variant"] == "logits" else ""


RSD = Method(
    name="rsd",
    title="Redundancy suppression distillation",
    source="Zhang et al., ICCV 2025, arXiv 2507.21844",
    reads=("embedding", "logits", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "lambda",
            0.1,
            "weight of the loss, which sums over D² entries (paper's lambda / D²)",
            low=0,
            search=(1e-3, 1),
        ),
        Hyperparameter(
            "kappa", 0.01, "weight of the off-diagonal correlations", low=0, search=(1e-4, 1)
        ),
        Hyperparameter(
            "gamma",
            2,
            "hidden size of the decoupler, in student embedding sizes; unused by variant logits",
            low=1,
            search=(1, 4),
        ),
        Hyperparameter(
            "variant",
            "embedding",
            "what is correlated: embedding (through the decoupler) or logits",
            choices=("embedding", "logits"),
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    couples_batch=True,
)
