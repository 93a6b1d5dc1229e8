"""Any timm classifier behind the Network interface."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from kdscale.errors import UserError, did_you_mean
from kdscale.models._network import (
    Network,
    classify_map,
    dummy_images,
    evaluating,
    keeping_statistics,
    must_take,
)
from kdscale.models._timm_tail import tail_steps
from kdscale.outputs import Affine, Need, Outputs, stage

Layout = Literal["NCHW", "NHWC", "tokens"]
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC", "tokens")

_STAGES_OF_UNIFORM = 4
_NO_FEATURES: frozenset[Need] = frozenset({"logits", "classifier", "tail"})
_ROUNDING = 1e-6
"""What float32 may lose in a mean over positions, relative to the mean of the absolute values."""


class TimmNetwork(Network):
    """A timm model; logits are its own forward pass, bitwise.

    The embedding is ``forward_head(pre_logits=True)``, the classifier's input. Stage features are
    those of ``forward_intermediates`` as maps, without class tokens, and none where a model lacks
    that method. A network whose blocks all yield maps of one shape (ViT, MLP-Mixer) is cut into
    four stages of equally many blocks, or nearly so.

    The map is ``forward_features``, tokens brought to their grid, where its mean over positions
    is the embedding: not where a class token is the embedding (ViT) or layers follow the pooling
    (ConvNeXt, MobileNetV3). In training a head's dropout comes between the two. There is a tail
    where the model is a chain of its modules, see `tail_steps`, and there are no pre-activations.

    Args:
        model: The timm model, of any mode; its state and mode stay as they are.
        image_size: Height and width in pixels of the images that it takes.
    """

    # timm's methods beyond those of nn.Module are not typed.
    def __init__(self, model: Any, image_size: int) -> None:
        super().__init__()
        self.model = model
        images = dummy_images(model, image_size)
        with evaluating(model):
            self.stage_indices = _stage_indices(self.model, images)
            everything = frozenset(stage(number) for number in range(len(self.stage_indices)))
            features, stages = self._features(images, everything)
            self.steps = tail_steps(model, self.stage_indices, list(stages.values()), features)
            embedding = self.model.forward_head(features, pre_logits=True)
            self.classifies_embedding = _classifies_embedding(self.model, images, embedding)
            self.layout = _layout(self.model, features, embedding)
        linear = self.classifies_embedding and isinstance(self.model.get_classifier(), nn.Linear)
        has: dict[Need, bool] = {
            "classifier": linear,
            "map": self.layout is not None,
            "class_maps": self.layout is not None and linear,
            "tail": bool(self.steps),
        }
        self.offers = (
            Network.offers | everything | {need for need, offered in has.items() if offered}
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        self.refuse_needs(needs)
        classifier = self._classifier() if "classifier" in needs else None
        tail = self.tail if "tail" in needs else None
        if needs <= _NO_FEATURES:
            return Outputs(self.model(images), stages={}, classifier=classifier, tail=tail)
        features, stages = self._features(images, needs)
        embedding = None
        if "embedding" in needs:
            embedding = self.model.forward_head(features, pre_logits=True)
        if embedding is not None and self.classifies_embedding:
            logits = self.model.get_classifier()(embedding)
        else:
            logits = self.model.forward_head(features)
        map = None
        if self.layout is not None and ("map" in needs or "class_maps" in needs):
            map = _to_map(self.layout, features, _prefix_tokens(self.model))
        class_maps = None
        if map is not None and "class_maps" in needs:
            class_maps = classify_map(map, *self._classifier())
        return Outputs(
            logits,
            embedding,
            map=map if "map" in needs else None,
            class_maps=class_maps,
            stages=stages,
            classifier=classifier,
            tail=tail,
        )

    def tail(self, number: int, features: Tensor) -> Outputs:
        """Returns logits and all later stages that follow from features in place of a stage's own.

        Running statistics stay those of the model's own features, see `keeping_statistics`.

        Args:
            number: The stage's number; what the model runs after it runs.
            features: What it is to have put out, ``[B, C_l, H_l, W_l]``.

        Raises:
            ValueError: There is no stage of this number with a tail.
        """
        places = {found: place for place, (_, found) in enumerate(self.steps) if found is not None}
        if number not in places:
            raise ValueError(f"a tail must start after one of {len(places)} stages: {number}")
        stages: dict[int, Tensor] = {}
        with keeping_statistics(self.model):
            for name, found in self.steps[places[number] + 1 :]:
                features = self.model.get_submodule(name)(features)
                if found is not None:
                    stages[found] = features
            return Outputs(self.model.forward_head(features), stages=stages)

    def _features(self, images: Tensor, needs: frozenset[Need]) -> tuple[Tensor, dict[int, Tensor]]:
        asked = [n for n in range(len(self.stage_indices)) if stage(n) in needs]
        if not asked:
            return self.model.forward_features(images), {}
        indices = [self.stage_indices[number] for number in asked]
        features, maps = self.model.forward_intermediates(
            images, indices=indices, output_fmt="NCHW"
        )
        return features, dict(zip(asked, maps, strict=True))

    def _classifier(self) -> Affine:
        layer: nn.Linear = self.model.get_classifier()
        bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        return Affine(layer.weight, bias)


def timm_network(
    name: str,
    num_classes: int,
    *,
    image_size: int,
    args: Mapping[str, object],
    pretrained: bool,
    other_names: Iterable[str],
) -> TimmNetwork:
    """Returns a timm model with a head of its own size.

    Args:
        name: timm's name, also with a weight tag (``resnet18.a1_in1k``).
        num_classes: C of the logits.
        image_size: Height and width in pixels of the images that it must take.
        args: Handed to ``timm.create_model``.
        pretrained: Whether timm loads its weights; the head is new if its size differs.
        other_names: Models known elsewhere, for did-you-mean.

    Raises:
        UserError: If timm does not know the name, cannot create the model with these arguments,
            or the model cannot take images of this size.
    """
    if not timm.is_model(name):
        names = timm.list_models()
        hint = did_you_mean(name.lower(), [*other_names, *names])
        raise UserError(f'model must be one of the zoo or of timm, but got "{name}" {hint}'.strip())
    try:
        model = timm.create_model(name, num_classes=num_classes, pretrained=pretrained, **args)
    except Exception as error:  # timm raises whatever the model's constructor raises
        raise UserError(f"timm cannot create {name} with {dict(args)}: {error}") from error
    with must_take(name, image_size, hint=f"(its args may have img_size: {image_size})"):
        return TimmNetwork(model, image_size)


def _stage_indices(model: Any, images: Tensor) -> list[int]:
    if not hasattr(model, "forward_intermediates"):
        return []
    maps = model.forward_intermediates(images, output_fmt="NCHW", intermediates_only=True)
    count = len(maps)
    if count > _STAGES_OF_UNIFORM and len({stage.shape for stage in maps}) == 1:
        return [count * (i + 1) // _STAGES_OF_UNIFORM - 1 for i in range(_STAGES_OF_UNIFORM)]
    return list(range(count))


def _classifies_embedding(model: Any, images: Tensor, embedding: Tensor) -> bool:
    """Returns whether ``get_classifier`` is all that lies between embedding and logits.

    Not so where the head has two classifiers (LeViT), a classifier with its own normalisation
    (EfficientViT) or a convolution (BiT): there the head must run as a whole.
    """
    try:
        logits = model.get_classifier()(embedding)
    except Exception:  # a pair of classifiers, or one that takes maps
        return False
    return torch.equal(logits, model(images))


def _layout(model: Any, features: object, embedding: Tensor) -> Layout | None:
    """Returns how ``forward_features`` lays out the map, None if it holds no map.

    It does if its mean over positions is the embedding up to rounding. A BatchNorm after the
    pooling, even a new one, is more than rounding.
    """
    if not isinstance(features, Tensor) or embedding.ndim != 2:
        return None
    for layout in LAYOUTS:
        map = _to_map(layout, features, _prefix_tokens(model))
        if map is not None and map.shape[1] == embedding.shape[1]:
            mean, scale = map.double().mean((2, 3)), map.double().abs().mean((2, 3)).max()
            if (mean - embedding).abs().max() <= _ROUNDING * scale:
                return layout
    return None


def _to_map(layout: Layout, features: Tensor, prefix_tokens: int) -> Tensor | None:
    """Returns features as ``[B, D, H, W]``, None if they cannot have this layout.

    Args:
        layout: How the features lie.
        features: ``[B, D, H, W]``, ``[B, H, W, D]`` or, row after row, ``[B, N, D]``.
        prefix_tokens: How many of the N tokens stand before those of the square grid.
    """
    if layout != "tokens":
        if features.ndim != 4:
            return None
        return features if layout == "NCHW" else features.permute(0, 3, 1, 2)
    if features.ndim != 3:
        return None
    tokens = features[:, prefix_tokens:].transpose(1, 2)
    side = math.isqrt(tokens.shape[2])
    if side * side != tokens.shape[2]:
        return None
    return tokens.reshape(*tokens.shape[:2], side, side)


def _prefix_tokens(model: Any) -> int:
    return int(getattr(model, "num_prefix_tokens", 0))
