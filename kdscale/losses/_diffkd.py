"""DiffKD: the student's features are the teacher's with noise; take it out, then compare."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._diffkd_denoiser import TRAIN_STEPS, Diffusion
from kdscale.losses._kd import kd
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    Needs,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.outputs import LOGITS, Need, Outputs, OutputShapes, present, stage
from kdscale.records import Value

MAP, STAGE, NONE = "map", "stage", "none"


class _DiffKDTerm(nn.Module):
    """Of map and logits, each if chosen: distance after denoising + the networks' own losses.

    MSE over all elements for the map, `kd` for the logits, and `Diffusion`'s losses, all with
    weight 1, as in the official ``kd_loss.py``. Zero at no known student.
    """

    def __init__(self, shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> None:
        super().__init__()
        self.features = str(hyperparameters["features"])
        self.temperature = float(hyperparameters["temperature"])
        self.numbers = len(shapes.student.stages) - 1, len(shapes.teacher.stages) - 1
        steps = int(hyperparameters["ddim_steps"])
        self.parts = nn.ModuleDict()
        self.sizes: dict[str, tuple[int, int, int, int]] = {}
        if self.features != NONE:
            c_s, _, _ = _shape(shapes.student, self.features)
            c_t, height, width = _shape(shapes.teacher, self.features)
            latent = int(hyperparameters["ae_channels"])
            part = Diffusion(c_s, c_t, kernel=3, latent=latent, steps=steps)
            self.parts["features"] = part
            self.sizes["features"] = (2, part.channels, height, width)
        if hyperparameters["logits"]:
            classes = shapes.teacher.classes
            part = Diffusion(classes, classes, kernel=1, latent=0, steps=steps)
            self.parts["logits"] = part
            self.sizes["logits"] = (2, classes, 1, 1)

    def forward(self, batch: Batch) -> Tensor:
        counts = [torch.Size(size).numel() for size in self.sizes.values()]
        # One draw, because a second one would return the same numbers.
        drawn = torch.split(
            batch.normal(sum(counts) + len(counts)), [*counts, *[1] * len(counts)], dim=1
        )
        losses = []
        for place, (name, part) in enumerate(self.parts.items()):
            f_s, f_t = self._pair(name, batch)
            noise = drawn[place].view(-1, *self.sizes[name]).to(f_s.dtype)
            uniform = torch.special.ndtr(drawn[len(counts) + place].squeeze(1))
            times = (uniform * TRAIN_STEPS).long().clamp(max=TRAIN_STEPS - 1)
            refined, target, own = part(f_s, f_t, noise, times)
            losses += [self._distance(name, refined, target), own]
        return torch.stack(losses).sum()

    def _pair(self, name: str, batch: Batch) -> tuple[Tensor, Tensor]:
        student, teacher = batch.student, batch.teacher
        if name == "logits":
            return student.logits[:, :, None, None], teacher.logits[:, :, None, None]
        return self._map(student, self.numbers[0]), self._map(teacher, self.numbers[1])

    def _map(self, outputs: Outputs, last: int) -> Tensor:
        return present(outputs.map) if self.features == MAP else outputs.stages[last]

    def _distance(self, name: str, refined: Tensor, target: Tensor) -> Tensor:
        if name == "logits":
            return kd(refined.flatten(1), target.flatten(1), temperature=self.temperature)
        return F.mse_loss(refined, target)


def _shape(side: OutputShapes, features: str) -> tuple[int, int, int]:
    return present(side.map) if features == MAP else side.stages[-1]


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    return _DiffKDTerm(shapes, hyperparameters)


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    def needs(side: OutputShapes) -> frozenset[Need]:
        if hyperparameters["features"] == NONE:
            return LOGITS
        return LOGITS | {
            "map" if hyperparameters["features"] == MAP else stage(len(side.stages) - 1)
        }

    return Needs(needs(shapes.student), needs(shapes.teacher))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    features = str(hyperparameters["features"])
    if shapes.batch_size < 2:
        return (
            "diffkd normalises over the batch, so the global batch must hold at least 2 images, "
            f"but got {shapes.batch_size}"
        )
    if features == NONE and not hyperparameters["logits"]:
        return "diffkd must compare features or logits, but got features: none and logits: false"
    if hyperparameters["logits"] and (reason := refuse_unequal_classes(shapes)):
        return reason
    if features == NONE:
        return ""
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        if features == MAP and side.map is None:
            return (
                f"the {name}'s embedding must be the mean of a map, but this model's is not; "
                "features: stage takes the last stage, features: none the logits alone"
            )
        if features == STAGE and not side.stages:
            return f"the {name} must put out stage features, but this model has none"
    grids = [_shape(side, features)[1:] for side in (shapes.student, shapes.teacher)]
    if grids[0] != grids[1]:
        return (
            "the maps of student and teacher must have one size, but got "
            f"{grids[0][0]} x {grids[0][1]} and {grids[1][0]} x {grids[1][1]}"
        )
    return ""


DIFFKD = Method(
    name="diffkd",
    title="Knowledge diffusion",
    source="Huang et al., NeurIPS 2023, arXiv 2305.15712",
    reads=("map", "stages", "logits", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "features",
            MAP,
            "what is compared beside the logits: the map that is pooled to the embedding, the "
            "last stage, or none",
            choices=(MAP, STAGE, NONE),
        ),
        Hyperparameter("logits", True, "the logits are compared"),
        Hyperparameter(
            "ae_channels",
            1024,
            "channels of the autoencoder's code of the teacher's map; 0 for no autoencoder",
            low=0,
        ),
        Hyperparameter("ddim_steps", 5, "DDIM steps, of twice as many", low=1, high=500),
        Hyperparameter(
            "temperature",
            1.0,
            "divides both logits in their KL, which carries T²",
            low=0,
            low_open=True,
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    couples_batch=True,
)
