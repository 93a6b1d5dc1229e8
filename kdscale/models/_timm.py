"""Any timm classifier behind the Network interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdscale.errors import UserError, did_you_mean
from kdscale.models._network import LOGITS, Network, dummy_images, evaluating, must_take
from kdscale.outputs import Need, Outputs

_STAGES_OF_UNIFORM = 4


class TimmNetwork(Network):
    """A timm model; logits are its own forward pass, bitwise.

    The embedding is ``forward_head(pre_logits=True)``, the classifier's input. Stage features are
    those of ``forward_intermediates`` as maps, without class tokens, and none where a model lacks
    that method. A network whose blocks all yield maps of one shape (ViT, MLP-Mixer) is cut into
    four stages of equally many blocks, or nearly so.

    Args:
        model: The timm model, of any mode; its state and mode stay as they are.
        image_size: Height and width in pixels of the images that it takes.
    """

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        self.model: Any = model  # timm's methods beyond nn.Module are not typed
        images = dummy_images(model, image_size)
        with evaluating(model):
            self.stage_indices = _stage_indices(self.model, images)
            self.classifies_embedding = _classifies_embedding(self.model, images)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        if needs <= LOGITS:
            return Outputs(self.model(images))
        stages: tuple[Tensor, ...] = ()
        if "stages" in needs and self.stage_indices:
            features, maps = self.model.forward_intermediates(
                images, indices=self.stage_indices, output_fmt="NCHW"
            )
            stages = tuple(maps)
        else:
            features = self.model.forward_features(images)
        if "embedding" not in needs:
            return Outputs(self.model.forward_head(features), stages=stages)
        embedding = self.model.forward_head(features, pre_logits=True)
        if self.classifies_embedding:
            logits = self.model.get_classifier()(embedding)
        else:
            logits = self.model.forward_head(features)
        return Outputs(logits, embedding, stages)


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


def _classifies_embedding(model: Any, images: Tensor) -> bool:
    """Returns whether ``get_classifier`` is all that lies between embedding and logits.

    Not so where the head has two classifiers (LeViT), a classifier with its own normalisation
    (EfficientViT) or a convolution (BiT): there the head must run as a whole.
    """
    embedding = model.forward_head(model.forward_features(images), pre_logits=True)
    try:
        logits = model.get_classifier()(embedding)
    except Exception:  # a pair of classifiers, or one that takes maps
        return False
    return torch.equal(logits, model(images))
