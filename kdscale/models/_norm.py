"""NORM's student: a linear expansion of the map to N teacher maps and back, folded at the end."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models._layers import conv_norm, he_initialise
from kdscale.models._linear_layer import linear_layer
from kdscale.models._network import Network, classify_map
from kdscale.outputs import Affine, Need, Outputs, present

# What is computed behind the expansion; the body's tail would go around it.
_OF_THE_END: frozenset[Need] = frozenset(
    {"logits", "embedding", "map", "class_maps", "classifier", "tail"}
)


class Norm(Network):
    """A network with a linear residual block between its map and its pooling.

    A 1x1 convolution with BatchNorm expands the map to N copies of the teacher's channels, a second
    one brings it back, and the map is added. The ``map`` that it hands out is the expanded one
    ``[B, N C_t, H, W]``, which the loss ``norm`` compares: its mean over positions is not the
    embedding here. Embedding, class maps and logits are those behind the block. Between map and
    logits all is linear, so that `fold` takes the block out after training.

    Args:
        body: The student; it must have a map and a linear classifier.
        channels: C_t, channels of the teacher's map.
        copies: N.

    Source:
        Liu et al.: NORM: Knowledge Distillation via N-to-One Representation Matching, ICLR 2023,
        arXiv 2305.13803; official code OSVAI/NORM ``models/cifar/resnet_student.py``. There the
        block of a wide ResNet stands before the last BatchNorm and ReLU, here behind them as in
        all other networks, since only then it folds into the classifier. At N = 1 the code leaves
        the block out, here it stays. The code's ShuffleNetV2 adds the image in place of the map,
        which cannot run. A head's dropout is left out here.
    """

    def __init__(self, body: Network, channels: int, copies: int) -> None:
        super().__init__()
        if body.shapes.map is None or not body.shapes.linear:
            raise ValueError("norm needs a body with a map and a linear classifier")
        in_channels, height, width = body.shapes.map
        self.body = body
        self.channels = channels
        self.copies = copies
        self.expand = conv_norm(in_channels, channels * copies, 1)
        self.contract = conv_norm(channels * copies, in_channels, 1)
        he_initialise(self.expand)
        he_initialise(self.contract)
        self.shapes = replace(body.shapes, map=(channels * copies, height, width), tail=False)
        self.stem = body.stem
        self.offers = body.offers - {"tail"}

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        self.refuse_needs(needs)
        inner = self.body.outputs(images, (needs - _OF_THE_END) | {"map", "classifier"})
        features, classifier = present(inner.map), present(inner.classifier)
        expanded: Tensor = self.expand(features)
        features = features + self.contract(expanded)
        embedding = features.mean((2, 3))
        return Outputs(
            logits=F.linear(embedding, *classifier),
            embedding=embedding if "embedding" in needs else None,
            map=expanded if "map" in needs else None,
            class_maps=classify_map(features, *classifier) if "class_maps" in needs else None,
            stages=inner.stages,
            preactivations=inner.preactivations,
            norms=inner.norms,
            classifier=classifier if "classifier" in needs else None,
        )

    def fold(self) -> Network:
        """Returns a copy of the body with the block in its classifier; equal logits in eval mode.

        Mean and 1x1 convolutions commute, and BatchNorm in eval mode is one more linear map, so
        that logits are W (I + M) e + W v + b for the body's embedding e.
        """
        body = copy.deepcopy(self.body)
        layer = linear_layer(body)
        first, second = _affine(self.expand), _affine(self.contract)
        matrix = second.weight @ first.weight
        shift = second.weight @ first.bias + second.bias
        weight = layer.weight.detach().double()
        bias = weight @ shift
        if layer.bias is not None:
            bias = bias + layer.bias.detach().double()
        with torch.no_grad():
            layer.bias = nn.Parameter(bias.to(layer.weight))
            layer.weight.copy_(weight + weight @ matrix)
        return body


def _affine(block: nn.Sequential) -> Affine:
    """Returns a 1x1 convolution and its BatchNorm in eval mode as one linear map, float64."""
    convolution, norm = block
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = convolution.weight.detach().double().flatten(1) * scale.unsqueeze(1)
    return Affine(weight, norm.bias.detach().double() - norm.running_mean.double() * scale)
