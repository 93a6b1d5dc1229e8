"""RCKA: give the logits the teacher's kernel between samples and between classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, require_same_shape
from kdscale.records import Value


@full_precision
def cka(x_s: Tensor, x_t: Tensor, *, row_norm: bool = False, centred: bool = False) -> Tensor:
    """Returns tr(K_s K_tᵀ) / (‖K_s‖ ‖K_t‖), a scalar between -1 and 1, where K = X Xᵀ.

    One at student = teacher. Without ``row_norm`` it is between 0 and 1, and one positive factor on
    all of X or a rotation of its columns changes nothing. Where n > 3 d no n x n matrix is made.

    Args:
        x_s: Student rows ``[n, d_s]``.
        x_t: Teacher rows ``[n, d_t]``; nothing is detached here.
        row_norm: Divides row i of K by ‖X_i‖, so that K is no longer symmetric.
        centred: Takes the mean row off X first, which makes it centred kernel alignment.

    Raises:
        ValueError: The numbers of rows differ.

    Source:
        See `rcka`.
    """
    if x_s.ndim != 2 or x_t.ndim != 2 or len(x_s) != len(x_t):
        raise ValueError(
            "student and teacher must have equally many rows, "
            f"but got {list(x_s.shape)} and {list(x_t.shape)}"
        )
    if centred:
        x_s, x_t = x_s - x_s.mean(dim=0), x_t - x_t.mean(dim=0)
    left_s = F.normalize(x_s, dim=1) if row_norm else x_s
    left_t = F.normalize(x_t, dim=1) if row_norm else x_t
    tiny = torch.finfo(x_s.dtype).tiny
    if len(x_s) <= 3 * min(x_s.shape[1], x_t.shape[1]):
        k_s, k_t = left_s @ x_s.T, left_t @ x_t.T
        inner = (k_s * k_t).sum()
        norm_s, norm_t = (torch.linalg.vector_norm(k).clamp_min(tiny**0.5) for k in (k_s, k_t))
    else:
        inner = _inner(left_s, x_s, left_t, x_t)
        squares = _inner(left_s, x_s, left_s, x_s), _inner(left_t, x_t, left_t, x_t)
        norm_s, norm_t = (square.clamp_min(tiny).sqrt() for square in squares)
    # One norm after the other: their product overflows for logits of 1e4.
    alignment: Tensor = inner / norm_s / norm_t
    return alignment


def _inner(left_a: Tensor, a: Tensor, left_b: Tensor, b: Tensor) -> Tensor:
    """Returns ⟨L_a Aᵀ, L_b Bᵀ⟩ without these n x n matrices, for rows of d_a and d_b numbers."""
    return ((left_a.T @ left_b) * (a.T @ b)).sum()


@full_precision
def rcka(
    z_s: Tensor,
    z_t: Tensor,
    *,
    inter: float,
    intra: float,
    row_norm: bool = True,
    centred: bool = False,
    temperature: float = 0.0,
) -> Tensor:
    """Returns -(inter CKA(Z) + intra CKA(Zᵀ)), a scalar: `cka` of samples and of classes.

    Smallest, -(inter + intra), at student = teacher, where the gradient is 0; no constant is added
    to make that 0. The value has no unit and does not grow with batch or classes, but both kernels
    look across the batch.

    Args:
        z_s: Student logits Z ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        inter: Weight of the B x B kernels between samples.
        intra: Weight of the C x C kernels between classes.
        row_norm: As in `cka`, for both.
        centred: As in `cka`, for both.
        temperature: T > 0 takes the kernels between samples of softmax(z / T); 0 of raw logits.

    Raises:
        ValueError: The shapes differ.

    Source:
        Zhou et al.: Rethinking Centered Kernel Alignment in Knowledge Distillation, IJCAI 2024,
        arXiv 2401.11824. Official code: Klayand/PCKA ``mmrazor/mmrazor/models/losses/cka_loss.py``
        for dense tasks, Klayand/Distill_Knowledge ``distiller/CKA.py`` for classification. The
        defaults here are those of a version of the latter with both parts: weights 15, rows
        normalised, logits not softened, beside cross-entropy 1 and no KD. Another version and
        PCKA exchange the names of the two parts, give the classes' part the other one's weight
        and leave it out by default. The name says centred, but no code centres
        (``centred=False``). PCKA does not normalise rows by default. Softening is in the code for
        the samples' kernels alone.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    p_s = torch.softmax(z_s / temperature, dim=1) if temperature > 0 else z_s
    p_t = torch.softmax(z_t / temperature, dim=1) if temperature > 0 else z_t
    samples = cka(p_s, p_t, row_norm=row_norm, centred=centred)
    classes = cka(z_s.T, z_t.T, row_norm=row_norm, centred=centred)
    return -(inter * samples + intra * classes)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    inter = float(hyperparameters["inter"])
    intra = float(hyperparameters["intra"])
    row_norm = bool(hyperparameters["row_norm"])
    centred = bool(hyperparameters["centred"])
    temperature = float(hyperparameters["temperature"])

    def term(batch: Batch) -> Tensor:
        return rcka(
            batch.student.logits,
            batch.teacher.logits,
            inter=inter,
            intra=intra,
            row_norm=row_norm,
            centred=centred,
            temperature=temperature,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "rcka compares the images of a batch, so the global batch must hold at least 2, "
            f"but got {shapes.batch_size}"
        )
    return refuse_unequal_classes(shapes)


RCKA = Method(
    name="rcka",
    title="Relation-based centred kernel alignment",
    source="Zhou et al., IJCAI 2024, arXiv 2401.11824",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter("inter", 1.0, "weight of the kernels between samples", low=0, search=(0, 2)),
        Hyperparameter("intra", 1.0, "weight of the kernels between classes", low=0, search=(0, 2)),
        Hyperparameter("row_norm", True, "divides each kernel row by the norm of its logits"),
        Hyperparameter("centred", False, "centres the kernels, as the name says and no code does"),
        Hyperparameter(
            "temperature",
            0.0,
            "softens the logits of the kernels between samples; 0 takes raw logits",
            low=0,
            search=(0, 8),
        ),
    ),
    build=_build,
    refuse=_refuse,
    couples_batch=True,
    weight=15.0,
)
