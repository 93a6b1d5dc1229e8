"""CIRKD, memory: relations of each pixel to remembered pixels and regions of the teacher."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision, kl_rows, require_same_grid, require_same_shape
from kdscale.losses.dense._maps import (
    channels,
    labels_at,
    pixel_rows,
    refuse_maps,
    refuse_one_value_a_channel,
    sum_in_parts,
)
from kdscale.outputs import present
from kdscale.records import Value

NEW_PIXELS = 16
"""Pixels remembered of each class of an image."""


@full_precision
def cirkd_memory(
    x_s: Tensor, x_t: Tensor, memory: Tensor, valid: Tensor, *, temperature: float
) -> Tensor:
    """Returns the mean over valid pixels of KL between similarities to a memory, a scalar.

    For a pixel, softmax over the memory's M entries of ⟨x, entry⟩ / T, teacher first. Reduction:
    sum over entries, mean over valid pixels, 0 if there are none. **No** T². Zero at student =
    teacher.

    Args:
        x_s: Student pixels ``[N, D]``, of unit length, in the teacher's space.
        x_t: Teacher pixels ``[N, D]``, of unit length; nothing is detached here.
        memory: Remembered features of the teacher ``[M, D]``, of unit length.
        valid: Whether a pixel counts, bool ``[N]``.
        temperature: T > 0.

    Raises:
        ValueError: The shapes of the pixels differ.

    Source:
        See `CIRKDMemory`.
    """
    require_same_shape(x_s, x_t, "[N, D]")

    def rows(part_s: Tensor, part_t: Tensor, counts: Tensor) -> Tensor:
        log_q, log_p = (
            F.log_softmax(part / temperature @ memory.T, dim=1) for part in (part_s, part_t)
        )
        return torch.where(counts, kl_rows(log_q, log_p), 0).sum()

    total = sum_in_parts(rows, x_s, x_t, valid, cost=len(memory))
    return total / valid.sum().clamp(min=1)


class CIRKDMemory(nn.Module):
    """CIRKD's projector and its two memories of the teacher, one queue a class each.

    Each step remembers, for each image and each class in it, the mean of the class's (unit) teacher
    features in the queue of regions, and 16 of its pixels, at random, in the queue of pixels; the
    oldest entries go. Then each labelled pixel's similarities to a random part of each memory are
    compared, the same places for all classes. Queues start as random unit vectors.

    Args:
        classes: C; a label outside 0 ... C - 1 is none.
        student_dims: D_s of the student's map.
        teacher_dims: D_t of the teacher's map: the projector is conv 1x1, BatchNorm, ReLU, conv 1x1
            from D_s to D_t, without bias.
        temperature: T > 0.
        pixel_memory: Pixels remembered per class; at least 16 B.
        region_memory: Regions remembered per class; at least B.
        pixel_contrast: Pixels drawn a step, over all classes: n // C + 1 of each.
        region_contrast: Regions drawn a step, likewise.
        official_quirks: Remember pixels as the code does, with which the published numbers were
            made: instead of 16 of a class's n pixels, 16 of the image's first n positions, of
            whatever class.

    Source:
        Yang et al.: Cross-Image Relational Knowledge Distillation for Semantic Segmentation, CVPR
        2022, arXiv 2204.06986, eqs. 9 and 13; official code winycg/CIRKD ``losses/cirkd_memory.py``
        and ``train_cirkd.py`` at 2d8ad0f. That a queue's end is overwritten in part when it is full
        there, where it wraps around here, is the one thing not kept. The queues take in all GPUs'
        pixels there while the similarities are those of one GPU's pixels.
    """

    def __init__(
        self,
        classes: int,
        student_dims: int,
        teacher_dims: int,
        *,
        temperature: float = 0.1,
        pixel_memory: int = 20000,
        region_memory: int = 2000,
        pixel_contrast: int = 4096,
        region_contrast: int = 1024,
        official_quirks: bool = True,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.temperature = temperature
        self.pixel_contrast = min(pixel_memory, pixel_contrast // classes + 1)
        self.region_contrast = min(region_memory, region_contrast // classes + 1)
        self.official_quirks = official_quirks
        self.projector = nn.Sequential(
            nn.Conv2d(student_dims, teacher_dims, 1, bias=False),
            nn.BatchNorm2d(teacher_dims),
            nn.ReLU(),
            nn.Conv2d(teacher_dims, teacher_dims, 1, bias=False),
        )
        regions = F.normalize(torch.randn(classes, region_memory, teacher_dims), dim=2)
        pixels = F.normalize(torch.randn(classes, pixel_memory, teacher_dims), dim=2)
        self.register_buffer("regions", regions)
        self.register_buffer("region_next", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("pixels", pixels)
        self.register_buffer("pixel_next", torch.zeros(classes, dtype=torch.int64))

    @full_precision
    def forward(
        self, f_s: Tensor, f_t: Tensor, target: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the pixel part and the region part ``[2]``, and remembers while training.

        Args:
            f_s: Student map ``[B, D_s, h, w]``.
            f_t: Teacher map ``[B, D_t, h, w]``.
            target: Labels, int64 ``[B, H, W]``, taken to h x w by the nearest pixel.
            generator: Draws the pixels to remember and the entries to compare with.

        Raises:
            ValueError: The grids differ.
        """
        require_same_grid(f_s, f_t)
        unit_s, unit_t = F.normalize(self.projector(f_s)), F.normalize(f_t)
        label = labels_at(target, (f_t.shape[2], f_t.shape[3])).flatten(1)
        if self.training:
            self._remember(unit_t.flatten(2).transpose(1, 2), label, generator)
        x_s, x_t = pixel_rows(unit_s), pixel_rows(unit_t)
        valid = ((label >= 0) & (label < self.classes)).flatten()
        parts = []
        for name, count in (("pixels", self.pixel_contrast), ("regions", self.region_contrast)):
            queue = self.get_buffer(name)
            places = torch.randperm(queue.shape[1], generator=generator, device=queue.device)
            drawn = queue[:, places[:count]].flatten(0, 1)
            parts.append(cirkd_memory(x_s, x_t, drawn, valid, temperature=self.temperature))
        return torch.stack(parts)

    @torch.no_grad()
    def _remember(self, pixels: Tensor, label: Tensor, generator: torch.Generator) -> None:
        """Puts new regions and pixels into the queues.

        Args:
            pixels: Teacher features ``[B, n, D]``, of unit length.
            label: Labels ``[B, n]``.
            generator: Draws the pixels.
        """
        classes = torch.arange(self.classes, device=label.device).unsqueeze(1)
        members = label.unsqueeze(1) == classes
        means = F.normalize(members.to(pixels.dtype) @ pixels, dim=2)
        self._push("region", means.transpose(0, 1), members.any(dim=2).T)

        images, _, n = members.shape
        candidates = members
        if self.official_quirks:
            candidates = torch.arange(n, device=label.device) < members.sum(dim=2, keepdim=True)
        # An order of the pixels, the same for all classes; those of other classes come last.
        order = torch.rand(images, 1, n, generator=generator, device=label.device)
        drawn = torch.where(candidates, order, -1).topk(min(NEW_PIXELS, n), dim=2)
        of_image = torch.arange(images, device=label.device).view(-1, 1, 1)
        new = pixels[of_image, drawn.indices].transpose(0, 1).flatten(1, 2)
        self._push("pixel", new, (drawn.values >= 0).transpose(0, 1).flatten(1))

    def _push(self, kind: str, new: Tensor, is_new: Tensor) -> None:
        """Overwrites the oldest entries of each class's queue by the new ones that are there.

        Args:
            kind: ``pixel`` or ``region``.
            new: Candidates ``[C, N, D]``, N at most the queue's length.
            is_new: Which of them to keep ``[C, N]``.
        """
        queue, start = self.get_buffer(f"{kind}s"), self.get_buffer(f"{kind}_next")
        counts = is_new.sum(dim=1)
        ranks = torch.arange(is_new.shape[1], device=queue.device)
        places = (start.unsqueeze(1) + ranks) % queue.shape[1]
        of_class = torch.arange(len(queue), device=queue.device).unsqueeze(1)
        first = is_new.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
        written = (ranks < counts.unsqueeze(1)).unsqueeze(2)
        kept = torch.where(written, new[of_class, first].to(queue.dtype), queue[of_class, places])
        queue[of_class, places] = kept
        start.copy_((start + counts) % queue.shape[1])


class _Term(nn.Module):
    def __init__(self, memory: CIRKDMemory, region_weight: float) -> None:
        super().__init__()
        self.memory = memory
        self.region_weight = region_weight

    def forward(self, batch: Batch) -> Tensor:
        f_s, f_t = present(batch.student.map), present(batch.teacher.map)
        pixel, region = self.memory(f_s, f_t, batch.target, batch.generator())
        value: Tensor = pixel + self.region_weight * region
        return value


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    student_dims, teacher_dims = channels(shapes)
    memory = CIRKDMemory(
        shapes.student.classes,
        student_dims,
        teacher_dims,
        temperature=float(hyperparameters["temperature"]),
        pixel_memory=int(hyperparameters["pixel_memory"]),
        region_memory=int(hyperparameters["region_memory"]),
        pixel_contrast=int(hyperparameters["pixel_contrast"]),
        region_contrast=int(hyperparameters["region_contrast"]),
        official_quirks=bool(hyperparameters["official_quirks"]),
    )
    return _Term(memory, float(hyperparameters["region_weight"]))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    for kind, of_image in (("pixel", NEW_PIXELS), ("region", 1)):
        size, least = int(hyperparameters[f"{kind}_memory"]), of_image * shapes.batch_size
        if size < least:
            return (
                f"{kind}_memory must hold what one batch of {shapes.batch_size} may add, "
                f"{least} a class, but got {size}"
            )
    return refuse_maps(shapes) or refuse_one_value_a_channel(shapes)


CIRKD_MEMORY = Method(
    name="cirkd_memory",
    title="Cross-image relational distillation, pixel and region memory",
    source="Yang et al., CVPR 2022, arXiv 2204.06986",
    reads=("map", "labels", "memory", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            0.1,
            "divides the cosines before the softmax; no T² in the loss",
            low=0,
            low_open=True,
            search=(0.05, 1),
        ),
        Hyperparameter(
            "region_weight", 1.0, "weight of the region part beside the pixel part", low=0
        ),
        Hyperparameter("pixel_memory", 20000, "pixels remembered per class", low=1),
        Hyperparameter("region_memory", 2000, "class regions remembered per class", low=1),
        Hyperparameter(
            "pixel_contrast", 4096, "pixels drawn from the memory a step, over all classes", low=1
        ),
        Hyperparameter(
            "region_contrast", 1024, "regions drawn from the memory a step, over all classes", low=1
        ),
        Hyperparameter(
            "official_quirks",
            True,
            "remember pixels as the code does, at positions that are not of their class",
        ),
    ),
    build=_build,
    needs=needs_of_both("map"),
    refuse=_refuse,
    couples_batch=True,
    dense=True,
    weight=0.1,
)
