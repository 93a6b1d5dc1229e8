"""FCFD: a student's features are right if the teacher's later layers make the same of them.

This is the loss of the official code (LiuDongyang6/FCFD, ``classification/cifar/main.py`` and
``models/meta.py``), the label's cross-entropy excepted, which is the objective's:

* the appearance of every stage after a bridge to the teacher (`fcfd_appearance`);
* the KL of student and teacher;
* mixed paths, drawn anew in each step: the student's first stages, a bridge, the teacher's later
  stages (s2t), or the other way round (t2s). Each has the KL of its logits and the teacher's, and
  an s2t path the appearance of the teacher's later stages too, within the same weight and ramp.

Bridges off the step's paths learn nothing in it. As in the official code mixed paths leave the
student's running statistics alone. Two things differ. The official teacher stays in training mode,
where BatchNorm takes the statistics of the batch; here it is in evaluation mode, as for all
methods. And the official networks are cut elsewhere: VGG and ShuffleNetV1 before their stages'
ReLU, wide ResNets, MobileNetV2 and ShuffleNetV2 at the end behind the last BatchNorm (ShuffleNetV2:
and its ReLU); here stages are those of all methods. The label's cross-entropy on mixed paths and
the KL between paths have weight 0 in the official configurations that could be read, and are left
out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._fcfd_bridge import Bridge, fcfd_appearance
from kdscale.losses._kd import kd
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    Needs,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._stages import ALL, refuse_stages, stage_pairs
from kdscale.outputs import LOGITS, Need, Outputs, OutputShapes, present, stage
from kdscale.records import Value

TO_TEACHER, TO_STUDENT = "s2t", "t2s"

Path = tuple[str, int]
"""(direction, place of the stage after which the other network goes on)."""


class _FCFDTerm(nn.Module):
    """w_kd x KL of the student + w_mixture x Σ KL of mixed paths + weight_l2 x Σ appearance."""

    def __init__(self, shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> None:
        super().__init__()
        self.pairs = stage_pairs(shapes, ALL)
        self.paths = _paths(shapes, hyperparameters)
        self.path_count = int(hyperparameters["extra_paths"])
        self.temperature = float(hyperparameters["temperature"])
        self.mixture_temperature = float(hyperparameters["temperature_mixture"])
        self.weight_l2 = float(hyperparameters["weight_l2"])
        self.l2_warmup_epochs = int(hyperparameters["l2_warmup_epochs"])
        self.w_kd = float(hyperparameters["w_kd"])
        self.w_mixture = float(hyperparameters["w_mixture"])
        student, teacher = shapes.student.stages, shapes.teacher.stages
        rectified = str(hyperparameters["rectified"])
        self.to_teacher = nn.ModuleList(
            Bridge(student[s], teacher[t], rectified=rectified in ("both", "teacher"))
            for s, t in self.pairs
        )
        self.to_student = nn.ModuleDict(
            {
                str(place): Bridge(
                    teacher[self.pairs[place][1]],
                    student[self.pairs[place][0]],
                    rectified=rectified in ("both", "student"),
                )
                for direction, place in self.paths
                if direction == TO_STUDENT and self.path_count
            }
        )

    def forward(self, batch: Batch) -> Tensor:
        student, teacher = batch.student, batch.teacher
        bridged = [
            bridge(student.stages[s])
            for bridge, (s, _) in zip(self.to_teacher, self.pairs, strict=True)
        ]
        appearance = self._appearance(0, bridged, teacher)
        functions = []
        # Python's generator, because the choice is of the step, and would wait for the device.
        for direction, place in random.Random(batch.key).sample(self.paths, self.path_count):
            s, t = self.pairs[place]
            if direction == TO_TEACHER:
                rest = present(teacher.tail)(t, bridged[place])
                later = [rest.stages[number] for _, number in self.pairs[place + 1 :]]
                appearance += self._appearance(place + 1, later, teacher)
            else:
                features = self.to_student[str(place)](teacher.stages[t])
                rest = present(student.tail)(s, features)
            function = kd(rest.logits, teacher.logits, temperature=self.mixture_temperature)
            functions.append(self.w_mixture * function)
        ramp = min(batch.epoch / self.l2_warmup_epochs, 1.0) if self.l2_warmup_epochs else 1.0
        loss = self.w_kd * kd(student.logits, teacher.logits, temperature=self.temperature)
        return sum(functions, loss) + self.weight_l2 * ramp * torch.stack(appearance).sum()

    def _appearance(self, first: int, maps: list[Tensor], teacher: Outputs) -> list[Tensor]:
        """Returns the distance of each map from the teacher's, the first one's place given."""
        last = len(self.pairs) - 1
        return [
            fcfd_appearance(f, teacher.stages[self.pairs[place][1]], last=place == last)
            for place, f in enumerate(maps, start=first)
        ]


def _paths(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> list[Path]:
    """Returns the paths to draw from: each switches after a stage that is not the last."""
    kind = hyperparameters["extra_type"]
    directions = (TO_TEACHER, TO_STUDENT) if kind == "bi" else (str(kind),)
    places = range(len(stage_pairs(shapes, ALL)) - 1)
    return [(direction, place) for direction in directions for place in places]


def _directions(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> set[str]:
    """Returns the directions in which a path may go."""
    if not hyperparameters["extra_paths"]:
        return set()
    return {direction for direction, _ in _paths(shapes, hyperparameters)}


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    return _FCFDTerm(shapes, hyperparameters)


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    directions = _directions(shapes, hyperparameters)
    pairs = stage_pairs(shapes, ALL)

    def needs(numbers: list[int], tail: str) -> frozenset[Need]:
        run = frozenset({"tail"}) if tail in directions else frozenset[str]()
        return LOGITS | run | {stage(number) for number in numbers}

    return Needs(needs([s for s, _ in pairs], TO_STUDENT), needs([t for _, t in pairs], TO_TEACHER))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if reason := refuse_unequal_classes(shapes) or refuse_stages(shapes, ALL):
        return reason
    if shapes.batch_size < 2:
        return (
            "fcfd normalises over the batch, so the global batch must hold at least 2 images, "
            f"but got {shapes.batch_size}"
        )
    paths, wanted = _paths(shapes, hyperparameters), int(hyperparameters["extra_paths"])
    if wanted > len(paths):
        return (
            f"extra_paths must be at most {len(paths)}, the paths of extra_type "
            f"{hyperparameters['extra_type']} in this pair, but got {wanted}"
        )
    for name, side, direction in (
        ("student", shapes.student, TO_STUDENT),
        ("teacher", shapes.teacher, TO_TEACHER),
    ):
        if direction in _directions(shapes, hyperparameters) and not side.tail:
            return (
                f"the {name} must be able to run from a stage's features on, but this model is "
                f"not; extra_paths: 0 leaves the mixed paths out"
            )
    return _refuse_grids(shapes.student, shapes.teacher, stage_pairs(shapes, ALL))


def _refuse_grids(
    student: OutputShapes, teacher: OutputShapes, pairs: list[tuple[int, int]]
) -> str:
    for s, t in pairs:
        grid_s, grid_t = student.stages[s][1:], teacher.stages[t][1:]
        if not any(
            grid_s == grid_t or (2 * small[0], 2 * small[1]) == large
            for small, large in ((grid_s, grid_t), (grid_t, grid_s))
        ):
            return (
                "two stages must have one size, or one twice the other's, but got "
                f"{grid_s[0]} x {grid_s[1]} and {grid_t[0]} x {grid_t[1]}"
            )
    return ""


FCFD = Method(
    name="fcfd",
    title="Function-consistent feature distillation",
    source="Liu et al., ICLR 2023, arXiv 2304.11832",
    reads=("stages", "tail", "logits", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "weight_l2",
            5.0,
            "weight of the maps' distances (0.02 for ResNet-56 to 20, and for 34 to 18)",
            low=0,
            search=(0.01, 10),
        ),
        Hyperparameter(
            "l2_warmup_epochs",
            20,
            "epoch e of so many multiplies that weight by e / so many (5 on ImageNet)",
            low=0,
        ),
        Hyperparameter("w_kd", 1.0, "weight of the student's KL with the teacher", low=0),
        Hyperparameter(
            "w_mixture",
            1.0,
            "weight of a mixed path's KL (0.2 for WRN-40-2 to WRN-16-2)",
            low=0,
            search=(0.1, 2),
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "of the student's KL, which carries T² (8 for ShuffleNetV2, 1 on ImageNet)",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "temperature_mixture",
            4.0,
            "of a mixed path's KL, which carries T²; officially the same",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter("extra_paths", 2, "mixed paths drawn in each step", low=0),
        Hyperparameter(
            "extra_type",
            "bi",
            "s2t: the student begins, t2s: the teacher begins, bi: both",
            choices=("bi", TO_TEACHER, TO_STUDENT),
        ),
        Hyperparameter(
            "rectified",
            "both",
            "whose stages end in a ReLU, so that bridges to them end in a LeakyReLU",
            choices=("both", "student", "teacher", "neither"),
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    couples_batch=True,
    skips=True,
)
