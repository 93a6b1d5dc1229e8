"""SphericalKD: compare logits after their length is taken out, so that confidence is not taught."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._kd import kd
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, require_same_shape
from kdscale.records import Value

NORM_EPS = 1e-7
SMALLEST_STD = 1e-7

PUBLISHED_WEIGHT = 0.9


@full_precision
def sphericalkd(z_s: Tensor, z_t: Tensor, *, temperature: float, m: float) -> Tensor:
    """Returns `kd` of `spherical_logits` of student and teacher, a scalar.

    Reduction and T² as in `kd`. Zero wherever z_s is a positive multiple of z_t up to a constant
    per sample (and the 1e-7), so at student = teacher too.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        temperature: T > 0.
        m: The multiplier: the standard deviation that all logits get.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Guo et al.: Reducing the Teacher-Student Gap via Spherical Knowledge Distillation, arXiv
        2010.07485; official code forjiuzhou/Spherical-Knowledge-Distillation, the two lines of
        ``README.md`` (multiplier 2 to 3). Its script ``skd_main.py`` does something else: see
        `sphericalkd_script`. Both compute the cross-entropy from the rescaled logits too, which
        is not in this function (see the hyperparameter ``ce`` of the method).
    """
    require_same_shape(z_s, z_t, "[B, C]")
    return kd(spherical_logits(z_s, m=m), spherical_logits(z_t, m=m), temperature=temperature)


@full_precision
def spherical_logits(z: Tensor, *, m: float) -> Tensor:
    """Returns m (z - mean_c z) / sqrt(var_c z + 1e-7), ``[B, C]``: logits of one length.

    The variance is the biased one over the classes; both statistics are differentiated.

    Args:
        z: Logits ``[B, C]``.
        m: The standard deviation that the logits get.
    """
    return m * F.layer_norm(z, z.shape[1:], eps=NORM_EPS)


@full_precision
def sphericalkd_script(
    z_s: Tensor, z_t: Tensor, *, temperature: float, official_quirks: bool = True
) -> Tensor:
    """Returns `kd` of the student's logits at the teacher's spread and the raw teacher's, a scalar.

    Each sample's z_s is multiplied by r = std_c(z_t) / std_c(z_s), unbiased and differentiated.
    Reduction and T² as in `kd`. Zero at student = teacher.

    Args:
        z_s: Student logits ``[B, C]``, C > 1.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        temperature: T > 0.
        official_quirks: Multiplies by r twice, as the script does.

    Raises:
        ValueError: The two shapes differ.

    Source:
        As `sphericalkd`; ``skd_main.py`` overwrites the student's logits with r z_s, takes the
        cross-entropy of those, and multiplies them by the same r once more for the divergence, so
        that their spread there is std(z_t)² / std(z_s), which looks like an oversight: without
        ``official_quirks`` it is done once. A standard deviation is at least 1e-7 here, where the
        script divides by 0.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    ratio = _ratio(z_s, z_t)
    scale = ratio.square() if official_quirks else ratio
    return kd(scale * z_s, z_t, temperature=temperature)


def _ratio(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns std_c(z_t) / std_c(z_s), ``[B, 1]``."""
    std_s = z_s.std(dim=1, keepdim=True).clamp_min(SMALLEST_STD)
    return z_t.std(dim=1, keepdim=True) / std_s


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature, m = float(hyperparameters["temperature"]), float(hyperparameters["m"])
    ce = float(hyperparameters["ce"])
    official_quirks = bool(hyperparameters["official_quirks"])

    def readme_term(batch: Batch) -> Tensor:
        z_s, z_t = batch.student.logits, batch.teacher.logits
        value = sphericalkd(z_s, z_t, temperature=temperature, m=m)
        return value + ce * F.cross_entropy(spherical_logits(z_s, m=m), batch.target)

    def script_term(batch: Batch) -> Tensor:
        z_s, z_t = batch.student.logits, batch.teacher.logits
        value = sphericalkd_script(
            z_s, z_t, temperature=temperature, official_quirks=official_quirks
        )
        return value + ce * F.cross_entropy(_ratio(z_s, z_t) * z_s, batch.target)

    return script_term if hyperparameters["variant"] == "script" else readme_term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.student.classes < 2:
        return (
            "sphericalkd takes a standard deviation over classes, so there must be at least 2, "
            f"but got {shapes.student.classes}"
        )
    return refuse_unequal_classes(shapes)


SPHERICALKD = Method(
    name="sphericalkd",
    title="Spherical knowledge distillation",
    source="Guo et al., 2020, arXiv 2010.07485",
    reads=("logits", "labels"),
    hyperparameters=(
        Hyperparameter(
            "variant",
            "readme",
            "readme: both logits get one length; script: the student gets the teacher's length",
            choices=("readme", "script"),
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "divides the rescaled logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "m",
            2.0,
            "multiplier: the standard deviation of the rescaled logits; unused by variant script",
            low=0,
            low_open=True,
            search=(1.5, 3),
        ),
        Hyperparameter(
            "ce",
            0.1 / PUBLISHED_WEIGHT,
            "weight of the rescaled logits' cross-entropy inside this term; times the weight 0.9 "
            "it is 0.1 and stands in for the objective's, so published is ce_weight 0",
            low=0,
            search=(0, 1),
        ),
        Hyperparameter(
            "official_quirks",
            True,
            "the student is rescaled twice, as in the script; unused by variant readme",
        ),
    ),
    build=_build,
    refuse=_refuse,
    weight=PUBLISHED_WEIGHT,
)
