"""A network in a form for reading only: BatchNorm folded into what feeds it, channels_last."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from kdscale.models._measure import refuse_channels_last
from kdscale.models._network import Network, dummy_images, evaluating
from kdscale.outputs import LOGITS

_LINEAR = (F.linear, torch.conv1d, torch.conv2d)
_OTHER = 0
"""Stands for whatever is not a layer, or a norm, that can be folded; no object has this id."""


class FoldedNorm(nn.Module):
    """Stands where a BatchNorm was that is now part of the layer before it.

    Args:
        norm: That BatchNorm. Its scale and shift stay, for methods that read them, and so do the
            dropout and the activation that timm's have in them.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight
        self.bias = norm.bias
        self.rest = nn.Sequential(*norm.children())

    def forward(self, x: Tensor) -> Tensor:
        """Returns x, or what the rest makes of it."""
        out: Tensor = self.rest(x)
        return out


def inference_form(network: Network, image_size: int) -> Network:
    """Returns a frozen copy of a network in eval mode that computes the same, but faster.

    A BatchNorm is folded into the convolution or linear layer before it where it alone takes what
    that layer puts out, and takes nothing else: so every output that a method can ask for is
    there as before, up to rounding, tail and the norms' own scale and shift included. The copy
    takes images in channels_last, unless that is unsafe where it lies (`refuse_channels_last`).

    Args:
        network: The network on its device; it stays as it is.
        image_size: Height and width in pixels of the images that it takes.
    """
    form = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    layers = {id(part.weight): part for part in form.modules() if _is_linear(part)}
    norms = {id(part.running_mean): (n, part) for n, part in form.named_modules() if _is_norm(part)}
    for weight, mean in list(_pairs(form, image_size)):
        if weight in layers and mean in norms:
            name, norm = norms[mean]
            _fold(layers[weight], norm)
            form.set_submodule(name, FoldedNorm(norm))
    unsafe = refuse_channels_last(form)
    form.image_format = torch.contiguous_format if unsafe else torch.channels_last
    return form.to(memory_format=form.image_format)


class _Flow(TorchFunctionMode):
    """Follows what linear layers put out through passes.

    Attributes:
        takers: By the id of a layer's weight, the ids of the running means of all norms that took
            its output.
        feeders: By the id of a norm's running mean, the ids of the weights of all layers whose
            output it took.
    """

    def __init__(self) -> None:
        super().__init__()
        self.takers: defaultdict[int, set[int]] = defaultdict(set)
        self.feeders: defaultdict[int, set[int]] = defaultdict(set)
        self._made: dict[int, tuple[int, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.batch_norm and len(args) > 1:
            weight, _ = self._made.get(id(args[0]), (_OTHER, None))
            self.feeders[id(args[1])].add(weight)
            self.takers[weight].add(id(args[1]))
        elif any(isinstance(part, Tensor) for part in tree_iter(out)):  # not a look at a shape
            self.take((args, kwargs))
        if func in _LINEAR:
            self._made[id(out)] = id(args[1]), out  # kept: no other tensor gets its id
        return out

    def take(self, tree: Any) -> None:
        """Counts everything in a tree as taken by what is no norm."""
        for part in tree_iter(tree):
            if id(part) in self._made:
                self.takers[self._made[id(part)][0]].add(_OTHER)


def _pairs(network: Network, image_size: int) -> Iterator[tuple[int, int]]:
    """Yields the ids of weight and running mean of each layer and norm that have only each other.

    In passes that ask for the logits alone, for all that the network offers, and from each stage
    on.
    """
    images = dummy_images(network, image_size)
    flow = _Flow()
    with evaluating(network), flow:
        flow.take(vars(network.outputs(images, LOGITS)))
        outputs = network.outputs(images, network.offers)
        flow.take(vars(outputs))
        for number, features in outputs.stages.items():
            if outputs.tail is not None:
                flow.take(vars(outputs.tail(number, features)))
    for weight, takers in flow.takers.items():
        if len(takers) == 1:
            [mean] = takers
            if flow.feeders[mean] == {weight}:
                yield weight, mean


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d)


def _is_norm(part: nn.Module) -> bool:
    """Returns whether a module is a BatchNorm that normalises by statistics of its own.

    Of its subclasses only those of timm are known, which put dropout and activation behind it.
    """
    plain = type(part) in (nn.BatchNorm1d, nn.BatchNorm2d)
    known = plain or type(part).__name__ == "BatchNormAct2d"
    return known and part.running_mean is not None and part.weight is not None


@torch.no_grad()
def _fold(layer: Any, norm: Any) -> None:
    """Makes a layer put out what a norm in eval mode makes of its output."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if layer.bias is not None:
        shift += layer.bias.double() * scale
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(weight.to(layer.weight), requires_grad=False)
    layer.bias = nn.Parameter(shift.to(layer.weight), requires_grad=False)
