"""CTKD: a temperature that learns against the student, gently at first."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._dkd import dkd
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, mean_kl, require_same_shape
from kdscale.records import Value


@full_precision
def ctkd(
    z_s: Tensor, z_t: Tensor, theta: Tensor, *, t_start: float, t_end: float, lambda_: float
) -> Tensor:
    """Returns `kd` at the temperature T = t_start + t_end σ(theta), a scalar.

    Reduction and T² as in `kd`; zero at student = teacher. T is differentiated wherever it stands,
    in T² and in the teacher's softmax too. The gradient that reaches ``theta`` is multiplied by
    lambda, so that for lambda < 0 a descent step makes the loss harder.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        theta: The learnt number, one element of any shape.
        t_start: The lowest temperature.
        t_end: The span above it: T < t_start + t_end.
        lambda_: Multiplies the gradient of ``theta``, not the value.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        Li et al.: Curriculum Temperature for Knowledge Distillation, AAAI 2023, arXiv 2211.16231;
        official code zhengli97/CTKD ``models/temp_global.py``, ``distiller_zoo/KD.py``. A comment
        there says that gradients are multiplied by -lambda; the code multiplies by lambda, and
        the sign comes from the schedule's minimum -1 (see `reversal_strength`). theta starts at 1
        (T = 15.6), in the student's parameter group: same learning rate, momentum and weight
        decay. The paper's temperature of each instance is not in the code, and not here.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    t = _temperature(theta, t_start, t_end, lambda_)
    scale = t.reciprocal()  # the derivative of a product is less work than that of a quotient
    return mean_kl(z_s * scale, z_t * scale) * t.square()


@full_precision
def ctkd_dkd(
    z_s: Tensor,
    z_t: Tensor,
    target: Tensor,
    theta: Tensor,
    *,
    alpha: float,
    beta: float,
    t_start: float,
    t_end: float,
    lambda_: float,
) -> Tensor:
    """Returns `dkd` at `ctkd`'s temperature, a scalar; zero at student = teacher.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        target: Labels, int64 ``[B]``.
        theta: The learnt number, one element of any shape.
        alpha: Weight of TCKD.
        beta: Weight of NCKD.
        t_start: The lowest temperature.
        t_end: The span above it.
        lambda_: Multiplies the gradient of ``theta``, not the value.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        As `ctkd`: ``--distill dkd`` of its ``train_student.py`` (weight 1, cross-entropy 1, beta 2
        for ResNet56 -> ResNet20).
    """
    t = _temperature(theta, t_start, t_end, lambda_)
    scale = t.reciprocal()
    decoupled = dkd(z_s * scale, z_t * scale, target, alpha=alpha, beta=beta, temperature=1.0)
    return decoupled * t.square()


def reversal_strength(
    epoch: int, *, lambda_min: float, lambda_max: float, lambda_epochs: int
) -> float:
    """Returns lambda of an epoch: from lambda_max down a cosine to lambda_min, where it stays.

    Args:
        epoch: The epoch, from 1: so the first one is already below lambda_max.
        lambda_min: Reached after ``lambda_epochs``; published: -1.
        lambda_max: Where the cosine starts, before the first epoch; published: 0.
        lambda_epochs: The epochs of the cosine; published: 10, on ImageNet 5.
    """
    phase = math.pi * min(epoch, lambda_epochs) / lambda_epochs
    return lambda_min + (lambda_max - lambda_min) * (math.cos(phase) + 1) / 2


def _temperature(theta: Tensor, t_start: float, t_end: float, lambda_: float) -> Tensor:
    """Returns T, a scalar with a scaled gradient in theta."""
    value = theta.detach()
    scaled = torch.add(value, theta - value, alpha=lambda_).reshape(())
    return t_start + t_end * torch.sigmoid(scaled)


class _LearntTemperature(nn.Module):
    """CTKD with its theta."""

    def __init__(self, hyperparameters: Mapping[str, Value]) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(1))
        self.base = str(hyperparameters["base"])
        self.alpha = float(hyperparameters["alpha"])
        self.beta = float(hyperparameters["beta"])
        self.t_start = float(hyperparameters["t_start"])
        self.t_end = float(hyperparameters["t_end"])
        self.lambda_min = float(hyperparameters["lambda_min"])
        self.lambda_max = float(hyperparameters["lambda_max"])
        self.lambda_epochs = int(hyperparameters["lambda_epochs"])

    def forward(self, batch: Batch) -> Tensor:
        z_s, z_t = batch.student.logits, batch.teacher.logits
        lambda_ = reversal_strength(
            batch.epoch,
            lambda_min=self.lambda_min,
            lambda_max=self.lambda_max,
            lambda_epochs=self.lambda_epochs,
        )
        if self.base == "kd":
            return ctkd(
                z_s, z_t, self.theta, t_start=self.t_start, t_end=self.t_end, lambda_=lambda_
            )
        return ctkd_dkd(
            z_s,
            z_t,
            batch.target,
            self.theta,
            alpha=self.alpha,
            beta=self.beta,
            t_start=self.t_start,
            t_end=self.t_end,
            lambda_=lambda_,
        )


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    return _LearntTemperature(hyperparameters)


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


CTKD = Method(
    name="ctkd",
    title="Curriculum temperature",
    source="Li et al., AAAI 2023, arXiv 2211.16231",
    reads=("logits", "labels", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "base",
            "kd",
            "the method whose temperature is learnt; published weight of kd 0.9, of dkd 1",
            choices=("kd", "dkd"),
        ),
        Hyperparameter(
            "t_start",
            1.0,
            "the lowest temperature; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 4),
        ),
        Hyperparameter(
            "t_end",
            20.0,
            "the span of temperatures above t_start",
            low=0,
            low_open=True,
            search=(5, 40),
        ),
        Hyperparameter(
            "lambda_min",
            -1.0,
            "what the temperature's gradient is multiplied by in the end; < 0 is adversarial",
            high=0,
            search=(-2, -0.1),
        ),
        Hyperparameter("lambda_max", 0.0, "what it is multiplied by before epoch 1", high=0),
        Hyperparameter(
            "lambda_epochs",
            10,
            "epochs of the cosine from lambda_max to lambda_min",
            low=1,
            search=(5, 40),
        ),
        Hyperparameter("alpha", 1.0, "weight of TCKD; unused by base kd", low=0, search=(0.5, 2)),
        Hyperparameter("beta", 2.0, "weight of NCKD; unused by base kd", low=0, search=(1, 10)),
    ),
    build=_build,
    refuse=_refuse,
    weight=0.9,
)
