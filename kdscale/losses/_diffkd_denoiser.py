"""DiffKD's networks: they learn on the teacher's features to take noise out of the student's."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._numerics import full_precision

TRAIN_STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 2e-2

PredictNoise = Callable[[Tensor, int], Tensor]
"""(noisy features, time step) -> the noise in them."""


def signal_kept() -> Tensor:
    """Returns ᾱ_t for t = 0 ... 999, float64: the share of the signal's variance left at t."""
    betas = torch.linspace(FIRST_BETA, LAST_BETA, TRAIN_STEPS, dtype=torch.float64)
    return (1 - betas).cumprod(0)


@full_precision
def ddim_denoise(features: Tensor, predict_noise: PredictNoise, *, steps: int) -> Tensor:
    """Returns the features after the last ``steps`` of 2 x ``steps`` DDIM steps, same shape.

    The steps are t = (steps - 1) d, ..., d, 0 with d = 1000 // (2 steps), deterministic (eta 0)
    and without clipping: x ← √ᾱ_{t-d} x̂ + √(1 - ᾱ_{t-d}) ε with ε the predicted noise,
    x̂ = (x - √(1 - ᾱ_t) ε) / √ᾱ_t, and ᾱ = 1 below t = 0. Gradients pass into features and
    denoiser, as in the official code.

    Args:
        features: Noisy features ``[B, C, H, W]``.
        predict_noise: The denoiser.
        steps: How many steps, 1 to 500.

    Source:
        As `Diffusion`; ``scheduling_ddim.py``, after Song et al., ICLR 2021, eq. 12.
    """
    kept = signal_kept().tolist()
    stride = TRAIN_STEPS // (2 * steps)
    for t in range((steps - 1) * stride, -1, -stride):
        now, after = kept[t], kept[t - stride] if t >= stride else 1.0
        scale = (after / now) ** 0.5
        correction = (1 - after) ** 0.5 - scale * (1 - now) ** 0.5
        features = scale * features + correction * predict_noise(features, t)
    return features


class Diffusion(nn.Module):
    """DiffKD's machinery for one pair of features: autoencoder, denoiser, noise adapter.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        kernel: 3 for maps, 1 for logits (as maps of one position).
        latent: Channels of the autoencoder's code of the teacher's features; 0 for none.
        steps: DDIM steps.

    Source:
        Huang et al.: Knowledge Diffusion for Distillation, NeurIPS 2023, arXiv 2305.15712;
        official code hunto/DiffKD ``diffkd.py``, ``diffkd_modules.py``, and
        hunto/image_classification_sota ``lib/models/losses/diffkd``, read in copies of it. The
        latter, which trains students, has a BatchNorm after the last projection, as here; the
        former has none. The noise adapter mixes with γ and 1 - γ, not with their roots. The
        time embedding has 1,000 rows where the official one has 1,280, of which 280 are unused;
        bottlenecks keep at least one channel where the official ones would have none.
    """

    def __init__(
        self, student_channels: int, teacher_channels: int, *, kernel: int, latent: int, steps: int
    ) -> None:
        super().__init__()
        self.steps = steps
        self.encoder: nn.Module | None = None
        self.decoder: nn.Module | None = None
        channels = latent or teacher_channels
        if latent:
            self.encoder = nn.Sequential(
                nn.Conv2d(teacher_channels, latent, 1), nn.BatchNorm2d(latent)
            )
            self.decoder = nn.Conv2d(latent, teacher_channels, 1)
        self.align = nn.Conv2d(student_channels, channels, 1)
        self.denoiser = _Denoiser(channels, kernel)
        self.adapter = _NoiseAdapter(channels, kernel)
        self.project = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.register_buffer("kept", signal_kept().float(), persistent=False)
        self.channels = channels

    def forward(
        self, f_s: Tensor, f_t: Tensor, noise: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the student's denoised features, their target, and the networks' own loss.

        The two features are ``[B, C, H, W]`` with the latent channels if there are any. The loss
        is a scalar: mean squared error of the predicted noise in noisy teacher features, plus, with
        an autoencoder, that of the reconstruction; both means over all elements.

        Args:
            f_s: Student features ``[B, C_s, H, W]``.
            f_t: Teacher features ``[B, C_t, H, W]``.
            noise: Standard normal noise ``[B, 2, C, H, W]``: for the student's features, and for
                training the denoiser.
            times: Steps to train the denoiser at, int64 ``[B]``, 0 to 999.
        """
        target, loss = f_t, f_s.new_zeros(())
        if self.encoder is not None and self.decoder is not None:
            code = self.encoder(f_t)
            loss = F.mse_loss(self.decoder(code), f_t)
            target = code.detach()
        aligned = self.align(f_s)
        share = self.adapter(aligned)
        noisy = share * aligned + (1 - share) * noise[:, 0]
        refined = self.project(ddim_denoise(noisy, self.denoiser, steps=self.steps))
        return refined, target, loss + self._training_loss(target, noise[:, 1], times)

    def _training_loss(self, target: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        kept = self.get_buffer("kept")[times].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * target + (1 - kept).sqrt() * noise
        return F.mse_loss(self.denoiser(noisy, times), noise)


class _Bottleneck(nn.Module):
    """A residual bottleneck: 1x1, 3x3, 1x1 with BatchNorm."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        narrow = max(channels // reduction, 1)
        self.body = nn.Sequential(
            nn.Conv2d(channels, narrow, 1),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class _Denoiser(nn.Module):
    """Predicts the noise in features at a time step: one for all of them, or int64 ``[B]``."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.time = nn.Embedding(TRAIN_STEPS, channels)
        if kernel == 3:
            self.body = nn.Sequential(
                _Bottleneck(channels, 4),
                _Bottleneck(channels, 4),
                nn.Conv2d(channels, channels, 1),
                nn.BatchNorm2d(channels),
            )
        else:
            self.body = nn.Sequential(*_widen_narrow(channels, 4), *_widen_narrow(channels, 4)[:-1])

    def forward(self, features: Tensor, t: Tensor | int) -> Tensor:
        noise: Tensor = self.body(features + self.time.weight[t].view(-1, features.shape[1], 1, 1))
        return noise


class _NoiseAdapter(nn.Module):
    """Says how much of each sample's features to keep when noise comes in, ``[B, 1, 1, 1]``."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.body = (
            _Bottleneck(channels, 8) if kernel == 3 else nn.Sequential(*_widen_narrow(channels, 2))
        )
        self.predict = nn.Linear(channels, 2)

    def forward(self, features: Tensor) -> Tensor:
        shares = self.predict(self.body(features).mean((2, 3))).softmax(1)
        return shares[:, 0].view(-1, 1, 1, 1)  # type: ignore[no-any-return]


def _widen_narrow(channels: int, factor: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels * factor, 1),
        nn.BatchNorm2d(channels * factor),
        nn.ReLU(),
        nn.Conv2d(channels * factor, channels, 1),
        nn.BatchNorm2d(channels),
    ]
