"""Students whose end a method changes: put on for training, taken off or kept, and saved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import torch

from kdscale.errors import UserError
from kdscale.models._linear_layer import linear_layer
from kdscale.models._network import Network
from kdscale.models._norm import Norm
from kdscale.models._simkd import SimKD
from kdscale.records import Value

Wrapping = Literal["simkd", "norm"]


def wrap_student(
    kind: Wrapping,
    network: Network,
    teacher: Network,
    hyperparameters: Mapping[str, Value],
    seed: int,
) -> Network:
    """Returns the student with the end that a method trains it with.

    Args:
        kind: Which end; the value of `Method.student`.
        network: The student; it becomes part of the result.
        teacher: The teacher, for its map's shape and its classifier.
        hyperparameters: The method's, complete: ``factor`` of simkd, ``copies`` of norm.
        seed: Seed of the end's initialisation. The global RNG state stays as it is.

    Raises:
        ValueError: A network lacks a map or a linear classifier, which the method refuses first.
    """
    if teacher.shapes.map is None:
        raise ValueError(f"{kind} needs a teacher with a map, but this one has none")
    channels, height, width = teacher.shapes.map
    digest = hashlib.sha256(f"{seed}/{kind}".encode()).digest()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: that would reseed accelerators too.
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        if kind == "norm":
            return Norm(network, channels, int(hyperparameters["copies"]))
        factor = int(hyperparameters["factor"])
        wrapped = SimKD(network, channels, teacher.shapes.classes, (height, width), factor)
    layer = linear_layer(teacher)
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
    wrapped.set_classifier(layer.weight, bias)
    return wrapped


def unwrap(network: Network) -> Network:
    """Returns what stays after training: a `Norm` folds into its body, anything else stays."""
    return network.fold() if isinstance(network, Norm) else network


def wrapping(network: Network) -> dict[str, Value]:
    """Returns the end of a network in plain words and numbers, for `rewrap`; empty without one."""
    if isinstance(network, Norm):
        return {"kind": "norm", "channels": network.channels, "copies": network.copies}
    if isinstance(network, SimKD):
        classes, channels = network.weight.shape
        height, width = network.size
        return {
            "kind": "simkd",
            "channels": channels,
            "classes": classes,
            "height": height,
            "width": width,
            "factor": network.factor,
        }
    return {}


def rewrap(body: Network, saved: Mapping[str, Value]) -> Network:
    """Returns a body with the end that `wrapping` described, its weights still to be loaded.

    Args:
        body: The network without its end.
        saved: What `wrapping` returned; the body itself if empty.

    Raises:
        UserError: It describes no end that this kdscale knows.
    """
    if not saved:
        return body
    try:
        if saved["kind"] == "norm":
            return Norm(body, int(saved["channels"]), int(saved["copies"]))
        if saved["kind"] == "simkd":
            size = int(saved["height"]), int(saved["width"])
            channels, classes = int(saved["channels"]), int(saved["classes"])
            return SimKD(body, channels, classes, size, int(saved["factor"]))
    except KeyError as error:
        raise UserError(f"a student's end must name its {error}, but got {dict(saved)}") from error
    raise UserError(f'a student\'s end must be simkd or norm, but got "{saved["kind"]}"')
