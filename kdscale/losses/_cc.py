"""CC: keep the distances between student and teacher small, neighbour by neighbour."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision, require_same_shape
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def cc(e_s: Tensor, e_t: Tensor) -> Tensor:
    """Returns mean_{b<B} Σ_d D_bd D_{b+1,d} with D = |e_s - e_t|, a scalar: RepDistiller's CC.

    Reduction: sum over dimensions, mean over the B - 1 pairs of neighbours in the batch. No
    temperature. Zero at student = teacher, and wherever no two neighbours differ from the teacher
    in the same dimension. **It depends on the order of the batch**: shuffling the images changes
    the value. Under several workers the order is that of the global batch.

    Args:
        e_s: Student features ``[B, D]``.
        e_t: Teacher features ``[B, D]``; nothing is detached here.

    Raises:
        ValueError: The two shapes differ, or B < 2.

    Source:
        RepDistiller ``distiller_zoo/CC.py``, "code emailed to me by the original author", of Peng
        et al.: Correlation Congruence for Knowledge Distillation, ICCV 2019, arXiv 1904.01802. The
        numbers for "CC" in the tables of CRD, OFA, RSD and others come from this form. It is not
        the paper's: that one compares kernel matrices of the batch, see `cckd`.
    """
    require_same_shape(e_s, e_t, "[B, D]")
    if len(e_s) < 2:
        raise ValueError(f"cc needs at least 2 images, but got {len(e_s)}")
    distance = (e_s - e_t).abs()
    return (distance[:-1] * distance[1:]).sum() / (len(distance) - 1)


class LinearPair(nn.Module):
    """One linear map for each network's embedding, to a common number of dimensions.

    Both train with the student and are thrown away after training; the teacher's too, as in all
    authors' code, so that a loss between the two can fall by what the maps learn alone.

    Args:
        student_dims: D_s of the student's embedding.
        teacher_dims: D_t of the teacher's embedding.
        dims: D of the common space.
    """

    def __init__(self, student_dims: int, teacher_dims: int, dims: int) -> None:
        super().__init__()
        self.student = nn.Linear(student_dims, dims)
        self.teacher = nn.Linear(teacher_dims, dims)

    @full_precision
    def of_student(self, embedding: Tensor) -> Tensor:
        """Returns the student's embedding ``[B, D_s]`` in the common space, ``[B, D]``."""
        mapped: Tensor = self.student(embedding)
        return mapped

    @full_precision
    def of_teacher(self, embedding: Tensor) -> Tensor:
        """Returns the teacher's embedding ``[B, D_t]`` in the common space, ``[B, D]``."""
        mapped: Tensor = self.teacher(embedding)
        return mapped


class _Term(nn.Module):
    """CC between the linearly mapped embeddings."""

    def __init__(self, maps: LinearPair) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, batch: Batch) -> Tensor:
        e_s = self.maps.of_student(present(batch.student.embedding))
        return cc(e_s, self.maps.of_teacher(present(batch.teacher.embedding)))


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    dims = int(hyperparameters["dims"])
    return _Term(LinearPair(shapes.student.embedding, shapes.teacher.embedding, dims))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "cc multiplies the distances of neighbours in the batch, so the batch must hold at "
            f"least 2 images, but got {shapes.batch_size}"
        )
    return ""


CC = Method(
    name="cc",
    title="Correlation congruence, RepDistiller's form",
    source="Peng et al., ICCV 2019, arXiv 1904.01802; as in RepDistiller",
    reads=("embedding", "adaptor"),
    hyperparameters=(
        Hyperparameter("dims", 128, "dimensions that both embeddings are mapped to", low=1),
    ),
    build=_build,
    needs=needs_of_both("embedding"),
    refuse=_refuse,
    couples_batch=True,
    weight=0.02,
)
