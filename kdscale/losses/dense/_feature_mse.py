"""Feature MSE: the map before the classifier, through a 1x1 convolution, equals the teacher's."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._maps import channels, refuse_maps
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def feature_mse(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Returns the mean of (f_s - f_t)² over all elements, a scalar.

    Reduction: mean over batch, channels and positions. No temperature. Zero at student = teacher.

    Args:
        f_s: Student map ``[B, D, h, w]``, after the 1x1 convolution.
        f_t: Teacher map ``[B, D, h, w]``; nothing is detached here.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Romero et al.: FitNets, ICLR 2015, arXiv 1412.6550, as in winycg/CIRKD
        ``losses/fitnet.py``: a 1x1 convolution without bias on the student's map, also where the
        channels agree, with weight 10. Ali et al., arXiv 2604.25530, compare the same loss under
        the name of canonical feature distillation; their weight is not public.
    """
    require_same_maps(f_s, f_t)
    return F.mse_loss(f_s, f_t)


class _Term(nn.Module):
    def __init__(self, student_dims: int, teacher_dims: int) -> None:
        super().__init__()
        self.align = nn.Conv2d(student_dims, teacher_dims, kernel_size=1, bias=False)

    def forward(self, batch: Batch) -> Tensor:
        return feature_mse(self.align(present(batch.student.map)), present(batch.teacher.map))


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    return _Term(*channels(shapes))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_maps(shapes)


FEATURE_MSE = Method(
    name="feature_mse",
    title="Mean squared error of feature maps",
    source="Romero et al., ICLR 2015, arXiv 1412.6550; dense: Yang et al., CVPR 2022",
    reads=("map", "adaptor"),
    hyperparameters=(),
    build=_build,
    needs=needs_of_both("map"),
    refuse=_refuse,
    dense=True,
    weight=10.0,
)
