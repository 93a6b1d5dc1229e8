"""FT: paraphrase the teacher's map into factors and let the student's map translate to them.

The translator's BatchNorm looks across the batch, so features are gathered over all workers and the
loss does not depend on their number; ``per_worker`` leaves that out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import (
    compared_shapes,
    needs_stages,
    refuse_one_value,
    refuse_unmatched_grids,
    total,
)
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_grid
from kdscale.losses._stages import match_height, stage_pairs, stages_hyperparameter
from kdscale.records import Value

SLOPE = 0.1


@full_precision
def ft_factor(f_s: Tensor, f_t: Tensor, *, pooled: bool = True) -> Tensor:
    """Returns mean |N(q_s) - N(q_t)|, a scalar, with N the division by the L2 norm of a sample.

    q = mean_c f² over channels, or q = f if not ``pooled``. Reduction: mean over the B·H·W entries,
    or over B·C·H·W. The higher map is first average-pooled to the lower one's height. No
    temperature. Zero at equal factors, and unchanged if a sample's factor is scaled by a positive
    number.

    Args:
        f_s: Student factor ``[B, C_s, H_s, W_s]``, the translator's output.
        f_t: Teacher factor ``[B, C_t, H_t, W_t]``, the paraphraser's; nothing is detached here.
        pooled: Compares the mean of the squares over channels, as RepDistiller does. Otherwise the
            factors themselves, as the authors do; they must then have one number of channels.

    Raises:
        ValueError: The grids differ after pooling, or the channels of factors not ``pooled``.

    Source:
        Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer,
        NeurIPS 2018, arXiv 1802.04977. The published CIFAR-100 tables are of RepDistiller
        ``distiller_zoo/FT.py`` (p1 = 2, p2 = 1, weight 200), which is the default; the paper and
        the authors' Jangho-Kim/Factor-Transfer-pytorch ``train_student.py`` compare the normalised
        factors themselves (``pooled=False``) with weight 500.
    """
    f_s, f_t = match_height(f_s, f_t)
    require_same_grid(f_s, f_t)
    if not pooled and f_s.shape[1] != f_t.shape[1]:
        raise ValueError(
            "factors that are not pooled must have one number of channels, "
            f"but got {f_s.shape[1]} and {f_t.shape[1]}"
        )
    return F.l1_loss(_normalised(f_s, pooled), _normalised(f_t, pooled))


def _normalised(f: Tensor, pooled: bool) -> Tensor:
    return F.normalize((f.square().mean(dim=1) if pooled else f).flatten(1), dim=1)


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's map: three 3x3 convolutions to the factor, three back.

    A leaky ReLU (0.1) follows each one; no BatchNorm.

    Args:
        channels: C_t of the teacher's map.
        factors: Channels of the factor.

    Source:
        As `ft_factor`, ``Paraphraser`` of RepDistiller ``models/util.py``.
    """

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE)),
            *(nn.Conv2d(channels, factors, 3, padding=1), nn.LeakyReLU(SLOPE)),
            *(nn.Conv2d(factors, factors, 3, padding=1), nn.LeakyReLU(SLOPE)),
        )
        self.decoder = nn.Sequential(
            *(nn.ConvTranspose2d(factors, factors, 3, padding=1), nn.LeakyReLU(SLOPE)),
            *(nn.ConvTranspose2d(factors, channels, 3, padding=1), nn.LeakyReLU(SLOPE)),
            *(nn.ConvTranspose2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE)),
        )

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Returns the reconstruction ``[B, C_t, H, W]`` of the teacher's map, same shape."""
        reconstruction: Tensor = self.decoder(self.encoder(features))
        return reconstruction


class Translator(nn.Module):
    """Three 3x3 convolutions, each with BatchNorm and a leaky ReLU (0.1), to the factor.

    Args:
        channels: C_s of the student's map, also of the first hidden map.
        factors: Channels of the factor.

    Source:
        As `Paraphraser`; the authors' own translator has no BatchNorm.
    """

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        widths = (channels, channels, factors, factors)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            conv = nn.Conv2d(before, after, 3, padding=1)
            layers += [conv, nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
        self.encoder = nn.Sequential(*layers)

    @full_precision
    def forward(self, features: Tensor) -> Tensor:
        """Returns the factor ``[B, factors, H, W]`` of the student's map ``[B, C_s, H, W]``."""
        factor: Tensor = self.encoder(features)
        return factor


class _Term(nn.Module):
    """First the paraphrasers' reconstruction error, later the factor loss; summed over stages.

    Each half of the training leaves the other half's modules out: after the switch a paraphraser
    has no gradient, and stays as it is.
    """

    def __init__(
        self,
        pairs: list[tuple[int, int]],
        paraphrasers: list[Paraphraser],
        translators: list[Translator],
        paraphraser_epochs: int,
        reconstruction_weight: float,
        pooled: bool,
    ) -> None:
        super().__init__()
        self.pairs = pairs
        self.paraphrasers = nn.ModuleList(paraphrasers)
        self.translators = nn.ModuleList(translators)
        self.paraphraser_epochs = paraphraser_epochs
        self.reconstruction_weight = reconstruction_weight
        self.pooled = pooled

    def forward(self, batch: Batch) -> Tensor:
        preparing = batch.epoch <= self.paraphraser_epochs
        losses = []
        for place, (s, t) in enumerate(self.pairs):
            paraphraser, translator = self.paraphrasers[place], self.translators[place]
            f_t = batch.teacher.stages[t]
            if preparing:
                error = F.mse_loss(paraphraser(f_t), f_t)
                losses.append(self.reconstruction_weight * error)
            else:
                with torch.no_grad():
                    factor_t = paraphraser.get_submodule("encoder")(f_t)
                factor_s = translator(batch.student.stages[s])
                losses.append(ft_factor(factor_s, factor_t, pooled=self.pooled))
        return total(losses)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    stages = str(hyperparameters["stages"])
    k = float(hyperparameters["k"])
    channels = [(s[0], t[0]) for s, t in compared_shapes(shapes, stages)]
    return _Term(
        stage_pairs(shapes, stages),
        [Paraphraser(c_t, int(k * c_t)) for _, c_t in channels],
        [Translator(c_s, int(k * c_t)) for c_s, c_t in channels],
        int(hyperparameters["paraphraser_epochs"]),
        float(hyperparameters["reconstruction_weight"]),
        bool(hyperparameters["pooled"]),
    )


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    stages, k = str(hyperparameters["stages"]), float(hyperparameters["k"])
    if reason := refuse_unmatched_grids(shapes, stages):
        return reason
    compared = compared_shapes(shapes, stages)
    for _, (channels, _, _) in compared:
        if int(k * channels) < 1:
            return f"ft needs a factor of at least 1 channel, but k x channels is {k} x {channels}"
    return refuse_one_value(shapes.batch_size, [s for s, _ in compared])


FT = Method(
    name="ft",
    title="Factor transfer",
    source="Kim, Park, Kwak, NeurIPS 2018, arXiv 1802.04977",
    reads=("stages", "adaptor"),
    hyperparameters=(
        stages_hyperparameter("last", "the stages whose factors are compared, summed"),
        Hyperparameter(
            "k",
            0.5,
            "paraphrase rate: channels of the factor, in teacher channels",
            low=0,
            low_open=True,
            high=8,
        ),
        Hyperparameter(
            "paraphraser_epochs",
            30,
            "epochs in which the paraphraser learns to reconstruct the teacher and the student "
            "gets nothing; authors start the cross-entropy after them (ce_start_epoch)",
            low=0,
        ),
        Hyperparameter(
            "reconstruction_weight",
            0.005,
            "weight of the reconstruction error in those epochs; times the method's weight of 200 "
            "it is the 1 of the official code",
            low=0,
        ),
        Hyperparameter(
            "pooled", True, "compare channel means of squared factors, not the factors themselves"
        ),
    ),
    build=_build,
    needs=needs_stages,
    refuse=_refuse,
    couples_batch=True,
    skips=True,
    weight=200.0,
)
