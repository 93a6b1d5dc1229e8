"""The one interface of teachers and students, and the form that every model of the zoo has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kdscale.errors import UserError
from kdscale.outputs import Need, Outputs, OutputShapes

LOGITS: frozenset[Need] = frozenset({"logits"})
EVERYTHING: frozenset[Need] = frozenset({"logits", "embedding", "stages"})


class Network(nn.Module):
    """A classifier that also yields its embedding and its stage features.

    Attributes:
        shapes: The shapes of everything that ``outputs`` can return, without the batch.
    """

    shapes: OutputShapes

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``[B, C]`` of normalised images ``[B, 3, H, W]``."""
        return self.outputs(images, LOGITS).logits

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        """Returns the logits, bitwise those of ``forward``, and what else ``needs`` names.

        Args:
            images: Normalised images ``[B, 3, H, W]``.
            needs: The parts to hand out; parts that it leaves out are not kept.
        """
        raise NotImplementedError


class StagedNetwork(Network):
    """A chain of stages, a neck that pools the last map to the embedding, and a linear classifier.

    Args:
        stages: Modules that run one after the other; each one's output is a stage feature. None
            may write into its input, which is the feature of the stage before it.
        neck: Maps the last stage feature to the embedding ``[B, D]``.
        classifier: Maps the embedding to logits ``[B, C]``.
    """

    def __init__(self, stages: Sequence[nn.Module], neck: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.neck = neck
        self.classifier = classifier

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        features = images
        stages: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)
            if "stages" in needs:  # keeping all maps when nobody asks would cost memory in eval
                stages.append(features)
        embedding: Tensor = self.neck(features)
        return Outputs(
            logits=self.classifier(embedding),
            embedding=embedding if "embedding" in needs else None,
            stages=tuple(stages),
        )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Runs its block in evaluation mode without autograd, then restores each submodule's mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def dummy_images(module: nn.Module, image_size: int) -> Tensor:
    """Returns one image ``[1, 3, S, S]`` of fixed noise, on the device and in the type of module.

    Noise rather than zeros: zeros pass through networks without biases as zeros and would make
    any comparison of two ways through a network hold. The global RNG is not used.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    image = torch.randn(1, 3, image_size, image_size, generator=generator, device="cpu")
    return image.to(next(module.parameters()))


@contextmanager
def must_take(name: str, image_size: int, hint: str = "") -> Iterator[None]:
    """Turns whatever a network raises on its first images into a UserError.

    Args:
        name: The network's name.
        image_size: Height and width of the images in pixels.
        hint: How to mend it, in brackets.
    """
    try:
        yield
    except Exception as error:  # a network of timm raises whatever its author chose
        rule = f"{name} must take {image_size} x {image_size} images"
        raise UserError(f"{rule}, but it says: {error} {hint}".strip()) from error


def probe_shapes(network: Network, image_size: int) -> OutputShapes:
    """Returns the shapes of a network's outputs for square images of ``image_size`` pixels.

    Raises:
        ValueError: If logits or embedding have not two dimensions.
    """
    with evaluating(network):
        outputs = network.outputs(dummy_images(network, image_size), EVERYTHING)
    logits, embedding = outputs.logits, outputs.embedding
    assert embedding is not None
    if logits.ndim != 2 or embedding.ndim != 2:
        shapes = f"{list(logits.shape)} and {list(embedding.shape)}"
        raise ValueError(f"logits and embedding must be [B, C] and [B, D], but got {shapes}")
    return OutputShapes(
        classes=logits.shape[1],
        embedding=embedding.shape[1],
        stages=tuple((s.shape[1], s.shape[2], s.shape[3]) for s in outputs.stages),
    )
