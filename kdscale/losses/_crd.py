"""CRD: tell each image's teacher embedding from those of thousands of others, and vice versa."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._cc import LinearPair
from kdscale.losses._crd_sampler import CandidateSampler, Mode
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision, with_gradient
from kdscale.outputs import present
from kdscale.records import Value

OFFSET = 1e-7
# The products with all rows of a bank are taken, in one matrix product, unless the bank has so
# many times more rows than an image has candidates: then the candidates' rows are looked up.
DENSE_RATIO = 20
# How many candidates of an image are looked up at once.
CHUNK = 256


@full_precision
def crd_nce(x: Tensor, n_data: int) -> Tensor:
    """Returns CRD's contrastive loss of one direction, a scalar.

    With c = K / n_data + 1e-7 it is
    -mean_b [log(x_b0 / (x_b0 + c)) + Σ_k log((K / n_data) / (x_bk + c))]. Reduction: sum over the
    K + 1 candidates, mean over the batch, so the value grows with K.

    Args:
        x: Scores ``[B, K + 1]``, > 0: exp(similarity / temperature) / Z; column 0 is the positive.
        n_data: Images in the training split.

    Source:
        See `CRDContrast`.
    """
    return _nce(x.log(), n_data)


def _nce(log_x: Tensor, n_data: int) -> Tensor:
    """Returns `crd_nce` of the logarithms of scores; finite for any finite ones."""
    chance, threshold = _log_chance(log_x, n_data)
    surplus = log_x - threshold
    positive, negatives = F.softplus(-surplus[:, 0]).sum(), F.softplus(surplus[:, 1:]).sum()
    constant = (log_x.shape[1] - 1) * (threshold - chance)
    return (positive + negatives) / len(log_x) + constant


def _nce_and_slope(log_x: Tensor, n_data: int) -> tuple[Tensor, Tensor]:
    """Returns `_nce` and its gradient ``[B, K + 1]``."""
    _, threshold = _log_chance(log_x, n_data)
    slope = torch.sigmoid(log_x - threshold)
    slope[:, 0] -= 1
    return _nce(log_x, n_data), slope / len(log_x)


def _log_chance(log_x: Tensor, n_data: int) -> tuple[float, float]:
    """Returns log(K / n) and log(K / n + offset) for scores of K + 1 candidates."""
    chance = (log_x.shape[1] - 1) / n_data
    return math.log(chance), math.log(chance + OFFSET)


class CRDContrast(nn.Module):
    """CRD with its two embeddings, two memory banks and two normalisation constants.

    A bank holds an embedding of every training image: of the student's in ``bank_s``, of the
    teacher's in ``bank_t``, uniform random numbers at first. The constants Z are set in the first
    batch and then stay. Banks and constants are buffers, so they survive a resume; the whole
    module is thrown away after training.

    Args:
        student_dims: D_s of the student's embedding.
        teacher_dims: D_t of the teacher's embedding.
        n_data: Images in the training split.
        dims: D of the common space.
        temperature: Divides the similarities, > 0.
        momentum: How much of a bank's row stays when its image has been seen, from 0 to 1.

    Source:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, arXiv 1910.10699;
        official code RepDistiller ``crd/criterion.py`` and ``crd/memory.py``. As there, Z is one
        constant per direction, the first batch's mean of exp(similarity / temperature) times
        n_data, not differentiated. Here logarithms of scores are computed, so that no temperature
        overflows, and no ``[B, K + 1, D]`` tensor of bank rows is kept. Under several workers the
        objective gathers the global batch, so that all banks are equal; with ``per_worker`` each
        worker's bank learns its own images alone, until all take worker 0's after the epoch.
    """

    def __init__(
        self,
        student_dims: int,
        teacher_dims: int,
        n_data: int,
        *,
        dims: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        self.embed = LinearPair(student_dims, teacher_dims, dims)
        self.n_data = n_data
        self.temperature = temperature
        self.momentum = momentum
        bound = math.sqrt(3 / dims)
        self.bank_s: Tensor
        self.bank_t: Tensor
        self.log_z_s: Tensor
        self.log_z_t: Tensor
        for side in ("s", "t"):
            self.register_buffer(f"bank_{side}", torch.empty(n_data, dims).uniform_(-bound, bound))
            self.register_buffer(f"log_z_{side}", torch.tensor(math.nan))

    @full_precision
    def forward(self, e_s: Tensor, e_t: Tensor, index: Tensor, candidates: Tensor) -> Tensor:
        """Returns the sum of `crd_nce` in both directions, a scalar; in training updates the banks.

        The student's unit embedding is compared with rows of the teacher's bank and the teacher's
        with the student's. Then row i of each bank becomes the unit vector along
        momentum x (row i) + (1 - momentum) x (embedding of image i), for the images of the batch.

        Args:
            e_s: Student embedding ``[B, D_s]``.
            e_t: Teacher embedding ``[B, D_t]``.
            index: The images' numbers in the training split, int64 ``[B]``, all different.
            candidates: Numbers of the images to compare with, int64 ``[B, K + 1]``: the positive,
                then the negatives.
        """
        a_s = F.normalize(self.embed.of_student(e_s))
        a_t = F.normalize(self.embed.of_teacher(e_t))
        loss: Tensor = self._contrast(a_s, self.bank_t, candidates, self.log_z_s)
        loss = loss + self._contrast(a_t, self.bank_s, candidates, self.log_z_t)
        if self.training:
            with torch.no_grad():
                self._remember(self.bank_s, index, a_s)
                self._remember(self.bank_t, index, a_t)
        return loss

    # Compiled, it would form the candidates' rows and keep them for the backward pass. Unlike
    # torch.compiler.disable this loads the compiler, a second's work, only when it is called.
    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _contrast(self, anchors: Tensor, bank: Tensor, candidates: Tensor, log_z: Tensor) -> Tensor:
        with torch.no_grad():
            similarity = _row_products(anchors, bank, candidates) / self.temperature
            first = similarity.flatten().logsumexp(0) + math.log(self.n_data / similarity.numel())
            constant = torch.where(log_z.isnan(), first, log_z)
            if self.training:
                log_z.copy_(constant)
        version = bank._version

        def composed(anchors: Tensor, constant: Tensor) -> Tensor:
            if bank._version != version:
                raise RuntimeError("crd's banks have moved on, so it has no second derivative now")
            rows = bank[candidates]
            products = torch.bmm(rows, anchors.unsqueeze(2)).squeeze(2)
            return _nce(products / self.temperature - constant, self.n_data)

        def fused(anchors: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = _nce_and_slope(similarity - constant, self.n_data)
            return value, _row_sums(slope / self.temperature, bank, candidates)

        return with_gradient(composed, fused, anchors, constant)

    def _remember(self, bank: Tensor, index: Tensor, embedding: Tensor) -> None:
        rows = self.momentum * bank[index] + (1 - self.momentum) * embedding
        bank.index_copy_(0, index, F.normalize(rows))


def _is_dense(bank: Tensor, candidates: Tensor) -> bool:
    return len(bank) <= DENSE_RATIO * candidates.shape[1]


def _row_products(anchors: Tensor, bank: Tensor, candidates: Tensor) -> Tensor:
    """Returns ⟨anchor b, bank row candidates[b, k]⟩ at ``[b, k]``."""
    if _is_dense(bank, candidates):
        return (anchors @ bank.T).gather(1, candidates)
    columns = anchors.unsqueeze(2)
    chunks = [
        torch.bmm(bank[some], columns).squeeze(2) for some in torch.split(candidates, CHUNK, 1)
    ]
    return torch.cat(chunks, dim=1)


def _row_sums(weights: Tensor, bank: Tensor, candidates: Tensor) -> Tensor:
    """Returns Σ_k weights[b, k] x (bank row candidates[b, k]), ``[B, D]``."""
    if _is_dense(bank, candidates):
        per_row = weights.new_zeros(len(weights), len(bank))
        return per_row.scatter_add_(1, candidates, weights) @ bank
    total = weights.new_zeros(len(weights), bank.shape[1])
    for some, parts in zip(
        torch.split(candidates, CHUNK, 1), torch.split(weights, CHUNK, 1), strict=True
    ):
        total += torch.bmm(parts.unsqueeze(1), bank[some]).squeeze(1)
    return total


class _Term(nn.Module):
    """CRD with its sampler."""

    def __init__(self, contrast: CRDContrast, sampler: CandidateSampler, negatives: int) -> None:
        super().__init__()
        self.contrast = contrast
        self.sampler = sampler
        self.negatives = negatives

    def forward(self, batch: Batch) -> Tensor:
        index = present(batch.index)
        e_s, e_t = present(batch.student.embedding), present(batch.teacher.embedding)
        candidates = self.sampler(index, self.negatives, batch.generator())
        loss: Tensor = self.contrast(e_s, e_t, index, candidates)
        return loss


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    labels = present(shapes.train_labels)
    contrast = CRDContrast(
        shapes.student.embedding,
        shapes.teacher.embedding,
        len(labels),
        dims=int(hyperparameters["dims"]),
        temperature=float(hyperparameters["temperature"]),
        momentum=float(hyperparameters["momentum"]),
    )
    modes: dict[Value, Mode] = {mode: mode for mode in ("exact", "relax", "unlabelled")}
    sampler = CandidateSampler(labels, modes[hyperparameters["mode"]])
    return _Term(contrast, sampler, int(hyperparameters["negatives"]))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    labels = shapes.train_labels
    if labels is None:
        return "crd remembers every training image, so it needs a training split, but got none"
    if hyperparameters["mode"] == "unlabelled":
        if len(labels) < 2:
            return f"crd needs at least 2 training images, but got {len(labels)}"
    elif len(torch.unique(labels)) < 2:
        return (
            "crd takes its negatives from other classes, so the training split must hold at least "
            f"2 classes, but got {len(torch.unique(labels))}; mode unlabelled does without"
        )
    return ""


CRD = Method(
    name="crd",
    title="Contrastive representation distillation",
    source="Tian, Krishnan, Isola, ICLR 2020, arXiv 1910.10699",
    reads=("embedding", "labels", "index", "memory", "adaptor"),
    hyperparameters=(
        Hyperparameter(
            "negatives", 16384, "K, how many negatives each image gets", low=1, search=(16, 16384)
        ),
        Hyperparameter(
            "temperature",
            0.07,
            "divides the similarities of unit embeddings",
            low=0,
            low_open=True,
            search=(0.02, 0.3),
        ),
        Hyperparameter(
            "momentum", 0.5, "how much of an image's old embedding a bank keeps", low=0, high=1
        ),
        Hyperparameter("dims", 128, "dimensions that both embeddings are mapped to", low=1),
        Hyperparameter(
            "mode",
            "exact",
            "exact: the image, against other classes; relax: its class, against other classes; "
            "unlabelled: the image, against any other image",
            choices=("exact", "relax", "unlabelled"),
        ),
    ),
    build=_build,
    needs=needs_of_both("embedding"),
    refuse=_refuse,
    couples_batch=True,
    weight=0.8,
)
