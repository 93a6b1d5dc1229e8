"""The layer behind a network's linear classifier, for the ends that freeze, copy or fold it."""

from __future__ import annotations

from typing import Any

from torch import nn

from kdscale.models._network import Network, StagedNetwork


def linear_layer(network: Network) -> nn.Linear:
    """Returns the linear layer that maps a network's embedding to its logits.

    Args:
        network: A network of the zoo or of timm, with ``shapes.linear``.

    Raises:
        ValueError: Its classifier is no linear layer.
    """
    if isinstance(network, StagedNetwork):
        return network.classifier
    # A timm network, known by its model: importing timm for a type would take seconds.
    model: Any = getattr(network, "model", None)
    layer = model.get_classifier() if model is not None else None
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"the network's classifier must be a linear layer, but got {layer}")
    return layer
