"""CIRKD, mini-batch: the relations of each pixel to the pixels of every image of the batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision, require_same_grid
from kdscale.losses.dense._maps import pixel_rows, refuse_maps, sum_in_parts, sum_kl
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def cirkd_minibatch(
    f_s: Tensor, f_t: Tensor, *, temperature: float, pooling: bool = False
) -> Tensor:
    """Returns the mean over pixels and images of KL between two rows of similarities, a scalar.

    For a pixel of image i and an image j, the row is softmax over j's pixels of the cosine / T.
    Reduction: sum over j's pixels, mean over i's, mean over the B² ordered pairs (i, j), those with
    i = j among them. **No** T². Zero at student = teacher; the two may differ in channels.

    All pairs are one matrix product of (B h w)² scores; where they are too many for memory they are
    computed image by image, and again in the backward pass. The number of scores grows with the
    square of the batch: the authors take it over the 2 images of one GPU (``per_worker``).

    Args:
        f_s: Student map ``[B, D_s, h, w]``.
        f_t: Teacher map ``[B, D_t, h, w]``; nothing is detached here.
        temperature: T > 0.
        pooling: Averages 2 x 2 windows first.

    Raises:
        ValueError: The grids differ.

    Source:
        Yang et al.: Cross-Image Relational Knowledge Distillation for Semantic Segmentation, CVPR
        2022, arXiv 2204.06986, eq. 6; official code winycg/CIRKD ``losses/cirkd_mini_batch.py`` at
        2d8ad0f. Gathering over GPUs and pooling are commented out there; the paper pools only where
        memory asks for it.
    """
    require_same_grid(f_s, f_t)
    if pooling:
        f_s, f_t = (F.avg_pool2d(f, 2, ceil_mode=True) for f in (f_s, f_t))
    batch_size, _, height, width = f_s.shape
    pixels = height * width
    unit_s, unit_t = (pixel_rows(F.normalize(f)) for f in (f_s, f_t))

    def rows(part_s: Tensor, part_t: Tensor) -> Tensor:
        scores_s, scores_t = (
            (part / temperature @ unit.T).view(-1, batch_size, pixels)
            for part, unit in ((part_s, unit_s), (part_t, unit_t))
        )
        return sum_kl(scores_s, scores_t, dim=2)

    total = sum_in_parts(rows, unit_s, unit_t, cost=batch_size * pixels)
    return total / (pixels * batch_size**2)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    pooling = bool(hyperparameters["pooling"])

    def term(batch: Batch) -> Tensor:
        f_s, f_t = present(batch.student.map), present(batch.teacher.map)
        return cirkd_minibatch(f_s, f_t, temperature=temperature, pooling=pooling)

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_maps(shapes)


CIRKD_MINIBATCH = Method(
    name="cirkd_minibatch",
    title="Cross-image relational distillation, mini-batch",
    source="Yang et al., CVPR 2022, arXiv 2204.06986",
    reads=("map",),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            0.1,
            "divides the cosines before the softmax; no T² in the loss",
            low=0,
            low_open=True,
            search=(0.05, 1),
        ),
        Hyperparameter("pooling", False, "averages 2 x 2 windows of both maps first"),
    ),
    build=_build,
    needs=needs_of_both("map"),
    refuse=_refuse,
    couples_batch=True,
    dense=True,
)
