"""PKT: match how likely each image of the batch takes another one for its neighbour."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision
from kdscale.losses._sp import require_same_batch
from kdscale.outputs import present
from kdscale.records import Value

OFFSET = 1e-7


@full_precision
def pkt(e_s: Tensor, e_t: Tensor) -> Tensor:
    """Returns mean_ij p_ij log((p_ij + 1e-7) / (q_ij + 1e-7)), a scalar.

    With cosine similarities c, p_ij = (1 + c_ij) / Σ_k (1 + c_ik) of the teacher and q of the
    student, the diagonal included. Reduction: **mean over all B² entries**, so the value is a
    B-th of the mean KL divergence, hence the large published weight. No temperature. Zero at
    student = teacher, and for features that are a rotation of the teacher's or differ by a
    positive factor per image.

    Args:
        e_s: Student embedding ``[B, D_s]``.
        e_t: Teacher embedding ``[B, D_t]``; nothing is detached here.

    Raises:
        ValueError: The two batches differ in size.

    Source:
        Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer,
        ECCV 2018, arXiv 1803.10837; official code passalis/probabilistic_kt ``nn/pkt.py`` and, the
        same, RepDistiller ``distiller_zoo/PKT.py``. The paper sums over pairs of different images;
        the code, which is followed, keeps the diagonal and takes the mean. An embedding of zeros
        gives a finite gradient here, NaN there. Under several workers the code compares within
        each GPU's share; the objective gathers the global batch first.
    """
    require_same_batch(e_s, e_t)
    q, p = _neighbours(e_s), _neighbours(e_t)
    return (p * ((p + OFFSET) / (q + OFFSET)).log()).mean()


def _neighbours(e: Tensor) -> Tensor:
    """Returns the probabilities of taking image j for image i's neighbour, ``[B, B]``."""
    unit: Tensor = e / (torch.linalg.vector_norm(e, dim=1, keepdim=True) + OFFSET)
    # A cosine may come out below -1 by a rounding error.
    similarity = (1 + unit @ unit.T).clamp(min=0)
    return similarity / similarity.sum(dim=1, keepdim=True)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    def term(batch: Batch) -> Tensor:
        return pkt(present(batch.student.embedding), present(batch.teacher.embedding))

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "pkt compares the images of a batch with each other, so the batch must hold at least "
            f"2, but got {shapes.batch_size}"
        )
    return ""


PKT = Method(
    name="pkt",
    title="Probabilistic knowledge transfer",
    source="Passalis, Tefas, ECCV 2018, arXiv 1803.10837",
    reads=("embedding",),
    hyperparameters=(),
    build=_build,
    needs=needs_of_both("embedding"),
    refuse=_refuse,
    couples_batch=True,
    weight=30000.0,
)
