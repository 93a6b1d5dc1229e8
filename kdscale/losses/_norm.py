"""NORM: let the student's map, expanded N-fold, match N copies of the teacher's."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def norm(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Returns N x the mean of (F_s - N copies of F_t)² over all elements, a scalar.

    Equal to the sum over the N copies of their mean squared errors: reduction mean over B C_t H W,
    sum over N. No temperature. Zero if every copy is the teacher's map. The larger map is
    max-pooled to the smaller one's size.

    Args:
        f_s: The student's expanded map ``[B, N C_t, H_s, W_s]``, copy after copy.
        f_t: The teacher's map ``[B, C_t, H_t, W_t]``; nothing is detached here.

    Raises:
        ValueError: The channels are no multiple of the teacher's, or the batches differ.

    Source:
        Liu et al.: NORM: Knowledge Distillation via N-to-One Representation Matching, ICLR 2023,
        arXiv 2305.13803; official code OSVAI/NORM ``helper/loops.py`` (N is -s, 8 in its scripts;
        r = cross-entropy 0.0625 to 0.5, b = 1). Its CIFAR branch pools the teacher's map alone,
        its ImageNet branch the student's alone; both are here. ImageNet compares further stages,
        here the last map is compared alone. Not in this number: the loop normalises both networks'
        logits over the classes and multiplies them by 2.5 before cross-entropy and KD, so that the
        published rows are not this loss alone (`sphericalkd` has such logits); and it multiplies b
        by a schedule of its epochs (CIFAR: 0.1 before 10, 0.5 before 20, 1 before 180, 0.5 before
        210, then 0.1).
    """
    copies, rest = divmod(f_s.shape[1], f_t.shape[1])
    if rest or len(f_s) != len(f_t):
        raise ValueError(
            "the student's map must hold N times the teacher's channels of the same images, "
            f"but got {list(f_s.shape)} and {list(f_t.shape)}"
        )
    grid = min(f_s.shape[2], f_t.shape[2]), min(f_s.shape[3], f_t.shape[3])
    f_s, f_t = (f if f.shape[2:] == grid else F.adaptive_max_pool2d(f, grid) for f in (f_s, f_t))
    expanded = f_s.reshape(len(f_t), copies, *f_t.shape[1:])
    return copies * F.mse_loss(expanded, f_t.unsqueeze(1).expand_as(expanded))


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    def term(batch: Batch) -> Tensor:
        return norm(present(batch.student.map), present(batch.teacher.map))

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    grids = []
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        if side.map is None:
            return (
                f"norm compares the last map, so the {name} must have one whose mean is the "
                "embedding, but this model has none"
            )
        grids.append(side.map)
    if shapes.batch_size < 2 and grids[0][1:] == (1, 1):
        return (
            "norm's BatchNorm needs more than one value a channel, so with maps of 1 x 1 the "
            f"global batch must hold at least 2 images, but got {shapes.batch_size}"
        )
    if not shapes.student.linear:
        return (
            "norm's expansion folds into the student's classifier, which must be linear, but "
            "this student has none"
        )
    return ""


NORM = Method(
    name="norm",
    title="N-to-one representation matching",
    source="Liu et al., ICLR 2023, arXiv 2305.13803",
    reads=("map",),
    hyperparameters=(
        Hyperparameter(
            "copies",
            8,
            "N: the student's map is expanded to N times the teacher's channels",
            low=1,
            search=(1, 16),
        ),
    ),
    build=_build,
    refuse=_refuse,
    needs=needs_of_both("map"),
    student="norm",
)
