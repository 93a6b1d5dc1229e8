"""The one interface of teachers and students, and the form that every model of the zoo has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.errors import UserError
from kdscale.models._layers import EndsInRelu, Neck
from kdscale.outputs import LOGITS, Affine, Need, Outputs, OutputShapes, preactivation, stage


class Network(nn.Module):
    """A classifier that also hands out its embedding, its stage features and more.

    Attributes:
        shapes: The shapes of everything that ``outputs`` can return, without the batch.
        offers: The needs that ``outputs`` can meet.
        stem: How many of the first stages are the stem.
        image_format: The memory format that it takes images in; None for that of the recipe.
    """

    shapes: OutputShapes
    image_format: torch.memory_format | None = None
    offers: frozenset[Need] = frozenset({"logits", "embedding"})
    stem: int = 0

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``[B, C]`` of normalised images ``[B, 3, H, W]``."""
        return self.outputs(images, LOGITS).logits

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        """Returns the logits, bitwise those of ``forward``, and what else ``needs`` names.

        Args:
            images: Normalised images ``[B, 3, H, W]``.
            needs: The parts to hand out; parts that it leaves out are not kept.

        Raises:
            ValueError: The network has not what ``needs`` names.
        """
        raise NotImplementedError

    def refuse_needs(self, needs: frozenset[Need]) -> None:
        """Raises a ValueError if ``needs`` names a part that the network has not."""
        missing = sorted(needs - self.offers)
        if missing:
            known = ", ".join(sorted(self.offers))
            raise ValueError(f"the network has no {', '.join(missing)}; it has {known}")


class StagedNetwork(Network):
    """A chain of stages, a neck that pools the last map to the embedding, and a linear classifier.

    Pre-activations and their norms are those of RepDistiller, the stem's excepted: there it hands
    out the features themselves, here too what goes into the ReLU.

    Args:
        stages: Modules that run one after the other, each an `EndsInRelu`; each one's output is a
            stage feature. None may write into its input, the feature of the stage before it.
        neck: Maps the last stage feature to the map and that to the embedding ``[B, D]``.
        classifier: Maps the embedding to logits ``[B, C]``.
    """

    stem = 1

    def __init__(self, stages: Sequence[nn.Module], neck: Neck, classifier: nn.Linear) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.neck = neck
        self.classifier = classifier
        numbers = range(len(stages))
        self.offers = frozenset(
            {"logits", "embedding", "map", "class_maps", "classifier", "tail"}
            | {stage(number) for number in numbers}
            | {preactivation(number) for number in numbers}
        )

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        self.refuse_needs(needs)
        stages: dict[int, Tensor] = {}
        preactivations: dict[int, Tensor] = {}
        map = self.walk(images, needs, stages, preactivations)
        embedding: Tensor = self.neck.pool(map)
        weight, bias = self.classifier.weight, self.classifier.bias
        return Outputs(
            logits=self.classifier(embedding),
            embedding=embedding if "embedding" in needs else None,
            map=map if "map" in needs else None,
            class_maps=classify_map(map, weight, bias) if "class_maps" in needs else None,
            stages=stages,
            preactivations=preactivations,
            norms=self._norms(preactivations),
            classifier=Affine(weight, bias) if "classifier" in needs else None,
            tail=self.tail if "tail" in needs else None,
        )

    def walk(
        self,
        images: Tensor,
        needs: frozenset[Need],
        stages: dict[int, Tensor],
        preactivations: dict[int, Tensor],
    ) -> Tensor:
        """Returns the map, and keeps what ``needs`` names on the way to it.

        Args:
            images: Normalised images ``[B, 3, H, W]``.
            needs: The parts to keep; keeping maps that nobody asks for would cost memory.
            stages: Takes the stage features, by the stage's number.
            preactivations: Takes the features before each stage's last ReLU.
        """
        features = images
        for number, part in enumerate(self.stages):
            if preactivation(number) in needs:
                features, before = cast("EndsInRelu", part).with_preactivation(features)
                preactivations[number] = before
            else:
                features = part(features)
            if stage(number) in needs:
                stages[number] = features
        return self.neck.map(features)

    def norm_of(self, number: int) -> nn.BatchNorm2d | None:
        """Returns the BatchNorm before the last ReLU of a stage; None if it has not one."""
        return cast("EndsInRelu", self.stages[number]).norm

    def tail(self, number: int, features: Tensor) -> Outputs:
        """Returns logits and all later stages that follow from features in place of a stage's own.

        Running statistics stay those of the network's own features, see `keeping_statistics`.

        Args:
            number: The stage's number; the stages after it run.
            features: What it is to have put out, ``[B, C_l, H_l, W_l]``.

        Raises:
            ValueError: There is no stage of this number.
        """
        if not 0 <= number < len(self.stages):
            raise ValueError(f"stage must be 0 to {len(self.stages) - 1}, but got {number}")
        stages: dict[int, Tensor] = {}
        with keeping_statistics(self):
            for later, part in enumerate(self.stages):
                if later > number:
                    features = stages[later] = part(features)
            return Outputs(self.classifier(self.neck(features)), stages=stages)

    def _norms(self, preactivations: dict[int, Tensor]) -> dict[int, Affine]:
        norms = {number: self.norm_of(number) for number in preactivations}
        return {number: Affine(n.weight, n.bias) for number, n in norms.items() if n is not None}


def classify_map(map: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns the classifier at each position of a map: ``[B, C, H, W]``.

    Args:
        map: ``[B, D, H, W]``.
        weight: The classifier's, ``[C, D]``.
        bias: The classifier's, ``[C]``.
    """
    return F.conv2d(map, weight[:, :, None, None], bias)


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


@contextmanager
def keeping_statistics(module: nn.Module) -> Iterator[None]:
    """Runs its block without moving the running statistics of BatchNorms.

    In training mode they normalise by the batch nevertheless.
    """
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm)
        and part.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


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
        outputs = network.outputs(dummy_images(network, image_size), network.offers)
    logits, embedding = outputs.logits, outputs.embedding
    assert embedding is not None
    if logits.ndim != 2 or embedding.ndim != 2:
        shapes = f"{list(logits.shape)} and {list(embedding.shape)}"
        raise ValueError(f"logits and embedding must be [B, C] and [B, D], but got {shapes}")
    stages = [outputs.stages[number] for number in sorted(outputs.stages)]
    return OutputShapes(
        classes=logits.shape[1],
        embedding=embedding.shape[1],
        stages=tuple(_map_shape(features) for features in stages),
        stem=network.stem,
        map=None if outputs.map is None else _map_shape(outputs.map),
        linear=outputs.classifier is not None,
        preactivations=bool(stages) and len(outputs.preactivations) == len(stages),
        norms=bool(stages) and len(outputs.norms) == len(stages),
        tail=outputs.tail is not None,
    )


def _map_shape(features: Tensor) -> tuple[int, int, int]:
    return features.shape[1], features.shape[2], features.shape[3]
