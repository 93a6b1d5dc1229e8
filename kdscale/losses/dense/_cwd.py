"""CWD: each channel's distribution over the positions of the map."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    Needs,
    PairShapes,
    Term,
)
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._maps import channels, refuse_maps, refuse_unequal_logits, sum_kl
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def cwd(f_s: Tensor, f_t: Tensor, *, temperature: float) -> Tensor:
    """Returns T² mean over images and channels of KL(p_t ‖ p_s), a scalar.

    p = softmax over the h w positions of one channel / T. Reduction: sum over positions, mean over
    batch and channels. T² is inside. A constant added to a channel of an image changes nothing.
    Zero at student = teacher.

    Args:
        f_s: Student maps ``[B, C, h, w]``: logits, or features brought to the teacher's channels.
        f_t: Teacher maps ``[B, C, h, w]``; nothing is detached here.
        temperature: T > 0.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Shu et al.: Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, arXiv
        2011.13256; official code irfanICMLL/TorchDistiller ``SemSeg-distill/utils/criterion.py``
        and winycg/CIRKD ``losses/cwd.py``, which take log(softmax) in two steps, -inf for a
        peaked student; here it is one log-softmax.
    """
    require_same_maps(f_s, f_t)
    kl = sum_kl(f_s.flatten(2) / temperature, f_t.flatten(2) / temperature, dim=2)
    return kl * (temperature**2 / f_s[:, :, 0, 0].numel())


class _MapTerm(nn.Module):
    """CWD of the maps before the classifiers; the student's is aligned if the channels differ."""

    def __init__(self, dims: tuple[int, int], temperature: float, official_quirks: bool) -> None:
        super().__init__()
        student_dims, teacher_dims = dims
        self.align: nn.Module = (
            nn.Identity()
            if student_dims == teacher_dims
            else nn.Conv2d(student_dims, teacher_dims, kernel_size=1, bias=False)
        )
        self.temperature = temperature
        self.scale = teacher_dims / student_dims if official_quirks else 1.0

    def forward(self, batch: Batch) -> Tensor:
        aligned = self.align(present(batch.student.map))
        loss = cwd(aligned, present(batch.teacher.map), temperature=self.temperature)
        return self.scale * loss


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    if hyperparameters["variant"] == "map":
        return _MapTerm(channels(shapes), temperature, bool(hyperparameters["official_quirks"]))

    def term(batch: Batch) -> Tensor:
        return cwd(batch.student.logits, batch.teacher.logits, temperature=temperature)

    return term


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    if hyperparameters["variant"] == "map":
        return Needs(frozenset({"map"}), frozenset({"map"}))
    return Needs()


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if hyperparameters["variant"] == "map":
        return refuse_maps(shapes)
    return refuse_unequal_logits(shapes)


CWD = Method(
    name="cwd",
    title="Channel-wise distillation",
    source="Shu et al., ICCV 2021, arXiv 2011.13256",
    reads=("logits", "map", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            4.0,
            "divides both maps before the softmax over positions; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "variant",
            "logits",
            "what is compared: logits (published weight 3) or the map before the classifier (50)",
            choices=("logits", "map"),
        ),
        Hyperparameter(
            "official_quirks",
            True,
            "variant map divides by the student's channels, as CIRKD's code does, although the sum "
            "runs over the teacher's",
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    dense=True,
    weight=3.0,
)
