"""SRRL: features that the teacher's own classifier reads as the teacher's."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, Needs, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_shape
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def srrl(
    a_s: Tensor,
    e_t: Tensor,
    z_t: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    alpha: float,
    beta: float,
) -> Tensor:
    """Returns alpha mean (a_s - e_t)² + beta mean (W a_s + b - z_t)², a scalar.

    Reduction: mean over all elements of each part, B D_t and B C. No temperature. Zero where the
    adapted embedding is the teacher's.

    Args:
        a_s: The student's adapted embedding ``[B, D_t]``.
        e_t: The teacher's embedding ``[B, D_t]``; nothing is detached here.
        z_t: The teacher's logits ``[B, C]``.
        weight: W of the teacher's classifier ``[C, D_t]``.
        bias: b of the teacher's classifier ``[C]``.
        alpha: Weight of the feature part.
        beta: Weight of the part behind the teacher's classifier.

    Raises:
        ValueError: The shapes of the embeddings differ.

    Source:
        Yang et al.: Knowledge Distillation via Softmax Regression Representation Learning, ICLR
        2021, not on arXiv. The authors' repository jingyang2017/SRRL could not be read; this is the
        form of DefangChen/SimKD ``models/util.py`` (SRRL) and ``helper/loops.py``, which weighs
        both parts 1 beside KD at T = 4 and cross-entropy, 1 each. cls_KD weighs them 1 and 5.
    """
    require_same_shape(a_s, e_t, "[B, D]")
    return alpha * F.mse_loss(a_s, e_t) + beta * F.mse_loss(F.linear(a_s, weight, bias), z_t)


class SRRLAdaptor(nn.Module):
    """SRRL's adaptor: Linear without bias -> BatchNorm1d -> ReLU.

    The official 1x1 convolution on a pooled embedding ``[B, D, 1, 1]`` is this linear map, in
    value and in initialisation. It is trained with the student and thrown away after training.

    Args:
        student_dims: D_s of the student's embedding.
        teacher_dims: D_t of the teacher's embedding.

    Source:
        As `srrl`. The ReLU fits teachers whose embedding is the mean of a map behind a ReLU.
    """

    def __init__(self, student_dims: int, teacher_dims: int) -> None:
        super().__init__()
        self.project = nn.Linear(student_dims, teacher_dims, bias=False)
        self.norm = nn.BatchNorm1d(teacher_dims)

    @full_precision
    def forward(self, embedding: Tensor) -> Tensor:
        """Returns the adapted embedding ``[B, D_t]``.

        Args:
            embedding: The student's embedding ``[B, D_s]``; B > 1 while training.
        """
        return F.relu(self.norm(self.project(embedding)))


class _Srrl(nn.Module):
    """`srrl` of the adapted student embedding under the teacher's classifier."""

    def __init__(self, adaptor: SRRLAdaptor, alpha: float, beta: float) -> None:
        super().__init__()
        self.adaptor = adaptor
        self.alpha = alpha
        self.beta = beta

    def forward(self, batch: Batch) -> Tensor:
        adapted = self.adaptor(present(batch.student.embedding))
        classifier = present(batch.teacher.classifier)
        return srrl(
            adapted,
            present(batch.teacher.embedding),
            batch.teacher.logits,
            classifier.weight,
            classifier.bias,
            alpha=self.alpha,
            beta=self.beta,
        )


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    adaptor = SRRLAdaptor(shapes.student.embedding, shapes.teacher.embedding)
    return _Srrl(adaptor, float(hyperparameters["alpha"]), float(hyperparameters["beta"]))


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    return Needs(frozenset({"embedding"}), frozenset({"logits", "embedding", "classifier"}))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if not shapes.teacher.linear:
        return (
            "srrl passes the student's features through the teacher's classifier, which must be "
            "linear, but this teacher has none"
        )
    if shapes.batch_size < 2:
        return (
            "srrl's adaptor normalises over the batch, so the global batch must hold at least 2 "
            f"images, but got {shapes.batch_size}"
        )
    return ""


SRRL = Method(
    name="srrl",
    title="Softmax regression representation learning",
    source="Yang et al., ICLR 2021, not on arXiv",
    reads=("embedding", "logits", "classifier", "adaptor"),
    hyperparameters=(
        Hyperparameter("alpha", 1.0, "weight of the feature part", low=0, search=(0.5, 10)),
        Hyperparameter(
            "beta",
            1.0,
            "weight of the part behind the teacher's classifier",
            low=0,
            search=(0.5, 10),
        ),
    ),
    build=_build,
    refuse=_refuse,
    needs=_needs,
    couples_batch=True,
)
