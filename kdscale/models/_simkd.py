"""SimKD's student: a body, a projector to the teacher's map, and the teacher's own classifier."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models._layers import conv_norm_relu
from kdscale.models._linear_layer import linear_layer
from kdscale.models._network import Network, classify_map
from kdscale.outputs import Affine, Need, Outputs, present

# What the end hands out in place of the body's own; the body's tail leads to its own classifier.
_OF_THE_END: frozenset[Need] = frozenset(
    {"logits", "embedding", "map", "class_maps", "classifier", "tail"}
)


class SimKD(Network):
    """A network whose map is projected to the teacher's and classified as the teacher does.

    The projector is 1x1 -> 3x3 -> 1x1 convolutions, each with BatchNorm and ReLU, whose middle
    has channels / factor channels. Projector and classifier stay after training: accuracy compares
    with a network of the body's size only if that is said. Stages are the body's; map, embedding,
    class maps and classifier are those of the end. The body's own linear classifier is frozen,
    for nothing reads it.

    Args:
        body: The student; it must have a map.
        channels: Channels of the teacher's map.
        classes: C of the teacher's classifier.
        size: Height and width of the teacher's map; a higher map of the body is average-pooled to
            it before the projector. A lower one stays, and the teacher's is pooled in the loss.
        factor: Divides the projector's middle channels.

    Source:
        Chen et al.: Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022,
        arXiv 2203.14001; official code DefangChen/SimKD ``models/util.py`` (SimKD).
    """

    def __init__(
        self, body: Network, channels: int, classes: int, size: tuple[int, int], factor: int = 2
    ) -> None:
        super().__init__()
        if body.shapes.map is None:
            raise ValueError("simkd needs a body with a map, but this one has none")
        in_channels, height, width = body.shapes.map
        middle = max(channels // factor, 1)
        self.body = body
        self.size = size
        self.factor = factor
        self.projector = nn.Sequential(
            conv_norm_relu(in_channels, middle, 1),
            conv_norm_relu(middle, middle, 3),
            conv_norm_relu(middle, channels, 1),
        )
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.zeros(classes, channels))
        self.register_buffer("bias", torch.zeros(classes))
        self.pools = height > size[0]
        grid = size if self.pools else (height, width)
        self.shapes = replace(
            body.shapes,
            classes=classes,
            embedding=channels,
            map=(channels, *grid),
            linear=True,
            tail=False,
        )
        self.stem = body.stem
        self.offers = (body.offers | _OF_THE_END) - {"tail"}
        if body.shapes.linear:
            linear_layer(body).requires_grad_(requires_grad=False)

    def set_classifier(self, weight: Tensor, bias: Tensor) -> None:
        """Takes over the teacher's classifier, ``[C, channels]`` and ``[C]``; it never trains."""
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        self.refuse_needs(needs)
        inner = self.body.outputs(images, (needs - _OF_THE_END) | {"map"})
        features = present(inner.map)
        if self.pools:
            features = F.adaptive_avg_pool2d(features, self.size)
        map: Tensor = self.projector(features)
        embedding = map.mean((2, 3))
        return Outputs(
            logits=F.linear(embedding, self.weight, self.bias),
            embedding=embedding if "embedding" in needs else None,
            map=map if "map" in needs else None,
            class_maps=(
                classify_map(map, self.weight, self.bias) if "class_maps" in needs else None
            ),
            stages=inner.stages,
            preactivations=inner.preactivations,
            norms=inner.norms,
            classifier=Affine(self.weight, self.bias) if "classifier" in needs else None,
        )
