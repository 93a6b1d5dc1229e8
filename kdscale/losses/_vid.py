"""VID: maximise a variational bound on the information that two networks' maps share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import compared_shapes, needs_stages, refuse_unmatched_grids, total
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses._stages import match_height, stage_pairs, stages_hyperparameter
from kdscale.records import Value

VARIANCE_OFFSET = 1e-5


@full_precision
def vid(
    prediction: Tensor, f_t: Tensor, log_scale: Tensor, *, eps: float = VARIANCE_OFFSET
) -> Tensor:
    """Returns mean ½ ((prediction - f_t)² / v + log v), a scalar, v = softplus(log_scale) + eps.

    That is the negative log-likelihood of the teacher's map under a Gaussian of the predicted mean
    and one learned variance v a channel, without the constant log(2π) / 2. Reduction: mean over all
    B·C·H·W elements. No temperature. May be negative; at prediction = f_t it is mean ½ log v.

    Args:
        prediction: Student map after its regressor, ``[B, C, H, W]``.
        f_t: Teacher map, same shape; nothing is detached here.
        log_scale: Of each channel, ``[C]``; trained.
        eps: Lower bound of the variance.

    Raises:
        ValueError: The two maps' shapes differ.

    Source:
        Ahn et al.: Variational Information Distillation for Knowledge Transfer, CVPR 2019, arXiv
        1904.05835. Official values: RepDistiller ``distiller_zoo/VID.py``. mdistiller
        ``distillers/VID.py`` keeps log_scale in a plain list, so its optimiser never sees it and
        the variance stays at its first value; in RepDistiller and here it is trained, with the
        recipe's weight decay as every parameter.
    """
    require_same_maps(prediction, f_t)
    variance = F.softplus(log_scale) + eps
    # The variance is one number a channel, so only the squared error is computed by element.
    error = (prediction - f_t).square().mean(dim=(0, 2, 3))
    return 0.5 * (error / variance + variance.log()).mean()


class VIDRegressor(nn.Module):
    """Three 1x1 convolutions without bias, ReLU between, and the log scale of the variance.

    Args:
        student_channels: C_s of the student's map.
        teacher_channels: C_t of the teacher's map, also of the hidden maps.
        init_var: The variance at the start.

    Attributes:
        log_scale: ``[C_t]``; the variance is softplus(log_scale) + 1e-5.

    Source:
        As `vid`, ``VIDLoss`` of RepDistiller.
    """

    def __init__(self, student_channels: int, teacher_channels: int, init_var: float = 5.0) -> None:
        super().__init__()
        self.regress = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        )
        start = math.log(math.expm1(init_var - VARIANCE_OFFSET))
        self.log_scale = nn.Parameter(torch.full((teacher_channels,), start))

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Returns the predicted mean ``[B, C_t, H, W]`` of the student's map ``[B, C_s, H, W]``."""
        prediction: Tensor = self.regress(features)
        return prediction


class _Term(nn.Module):
    """Σ over stages of VID, at the lower of the two grids."""

    def __init__(self, pairs: Sequence[tuple[int, int]], regressors: list[VIDRegressor]) -> None:
        super().__init__()
        self.pairs = pairs
        self.regressors = nn.ModuleList(regressors)

    def forward(self, batch: Batch) -> Tensor:
        losses = []
        for regressor, (s, t) in zip(self.regressors, self.pairs, strict=True):
            assert isinstance(regressor, VIDRegressor)
            f_s, f_t = match_height(batch.student.stages[s], batch.teacher.stages[t])
            losses.append(vid(regressor(f_s), f_t, regressor.log_scale))
        return total(losses)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    stages = str(hyperparameters["stages"])
    init_var = float(hyperparameters["init_var"])
    channels = [(s[0], t[0]) for s, t in compared_shapes(shapes, stages)]
    regressors = [VIDRegressor(c_s, c_t, init_var) for c_s, c_t in channels]
    return _Term(stage_pairs(shapes, stages), regressors)


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unmatched_grids(shapes, str(hyperparameters["stages"]))


VID = Method(
    name="vid",
    title="Variational information distillation",
    source="Ahn et al., CVPR 2019, arXiv 1904.05835",
    reads=("stages", "adaptor"),
    hyperparameters=(
        stages_hyperparameter("all", "the stages compared, summed"),
        Hyperparameter(
            "init_var", 5.0, "variance of the teacher's features at the start", low=0.01, high=100
        ),
    ),
    build=_build,
    needs=needs_stages,
    refuse=_refuse,
)
