"""Teachers and students by name: the CIFAR zoo of the distillation literature, and timm.

Every model is a ``Network``: logits, embedding and stage features from one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch

from kdscale.errors import UserError, did_you_mean
from kdscale.models._inference import inference_form
from kdscale.models._linear_layer import linear_layer
from kdscale.models._measure import count_parameters, multiply_accumulates, refuse_channels_last
from kdscale.models._mobilenetv2 import mobilenetv2
from kdscale.models._network import (
    Network,
    StagedNetwork,
    classify_map,
    must_take,
    probe_shapes,
)
from kdscale.models._resnet import resnet
from kdscale.models._resnet_bottleneck import resnet50
from kdscale.models._shufflenetv1 import shufflenetv1
from kdscale.models._shufflenetv2 import shufflenetv2
from kdscale.models._vgg import vgg
from kdscale.models._wide_resnet import wide_resnet
from kdscale.models._wrap import rewrap, unwrap, wrap_student, wrapping

__all__ = [
    "ZOO",
    "Network",
    "StagedNetwork",
    "ZooModel",
    "classify_map",
    "count_parameters",
    "create_model",
    "inference_form",
    "linear_layer",
    "model_names",
    "multiply_accumulates",
    "refuse_channels_last",
    "rewrap",
    "unwrap",
    "wrap_student",
    "wrapping",
]


@dataclass(frozen=True)
class ZooModel:
    """One name of the zoo.

    Attributes:
        build: Makes the network from the number of classes and the arguments that a file may set.
        arguments: The names of those arguments.
    """

    build: Callable[..., StagedNetwork]
    arguments: tuple[str, ...] = ()


ZOO: Mapping[str, ZooModel] = MappingProxyType(
    {
        "resnet8": ZooModel(partial(resnet, depth=8), ("width",)),
        "resnet14": ZooModel(partial(resnet, depth=14), ("width",)),
        "resnet20": ZooModel(partial(resnet, depth=20), ("width",)),
        "resnet32": ZooModel(partial(resnet, depth=32), ("width",)),
        "resnet44": ZooModel(partial(resnet, depth=44), ("width",)),
        "resnet56": ZooModel(partial(resnet, depth=56), ("width",)),
        "resnet110": ZooModel(partial(resnet, depth=110), ("width",)),
        "resnet8x4": ZooModel(partial(resnet, depth=8, width=64, stem_width=32)),
        "resnet32x4": ZooModel(partial(resnet, depth=32, width=64, stem_width=32)),
        "resnet50": ZooModel(resnet50),
        "wrn_16_1": ZooModel(partial(wide_resnet, depth=16, widen=1)),
        "wrn_16_2": ZooModel(partial(wide_resnet, depth=16, widen=2)),
        "wrn_40_1": ZooModel(partial(wide_resnet, depth=40, widen=1)),
        "wrn_40_2": ZooModel(partial(wide_resnet, depth=40, widen=2)),
        "vgg8": ZooModel(partial(vgg, convolutions=(1, 1, 1, 1, 1))),
        "vgg11": ZooModel(partial(vgg, convolutions=(1, 1, 2, 2, 2))),
        "vgg13": ZooModel(partial(vgg, convolutions=(2, 2, 2, 2, 2))),
        "vgg16": ZooModel(partial(vgg, convolutions=(2, 2, 3, 3, 3))),
        "vgg19": ZooModel(partial(vgg, convolutions=(2, 2, 4, 4, 4))),
        "mobilenetv2": ZooModel(mobilenetv2),
        "shufflenetv1": ZooModel(shufflenetv1),
        "shufflenetv2": ZooModel(shufflenetv2),
    }
)
"""The CIFAR zoo; its names win over timm's, which the prefix ``timm/`` reaches."""


def model_names() -> list[str]:
    """Returns the zoo's names; timm's are ``timm.list_models()``."""
    return list(ZOO)


def create_model(
    name: str,
    num_classes: int,
    *,
    image_size: int = 32,
    args: Mapping[str, object] = MappingProxyType({}),
    pretrained: bool = False,
    seed: int,
) -> Network:
    """Returns a network on the CPU in training mode, its weights a pure function of the seed.

    Args:
        name: A name of the zoo, or one of timm's; ``timm/resnet50`` is timm's whatever the zoo has.
        num_classes: C of the logits.
        image_size: Height and width in pixels of the images that it will take.
        args: Arguments of the model: of the zoo's, ``width`` (channels of the first stage) where
            ``ZOO`` says so; of timm's, what ``timm.create_model`` takes, for example ``img_size``.
        pretrained: Whether timm loads its weights; the zoo has none.
        seed: Seed of the initialisation. The global RNG state stays as it is.

    Raises:
        UserError: If the name or an argument is unknown or does not fit the images, or if weights
            are asked of the zoo.
    """
    with _seeded(seed):
        if name in ZOO:
            network = _zoo_network(name, num_classes, args, pretrained)
        else:
            network = _timm_network(name, num_classes, image_size, args, pretrained)
        with must_take(name, image_size):
            network.shapes = probe_shapes(network, image_size)
    return network


def _zoo_network(
    name: str, num_classes: int, args: Mapping[str, object], pretrained: bool
) -> Network:
    if pretrained:
        raise UserError(f'pretrained needs a timm model, but "{name}" is of the zoo')
    model = ZOO[name]
    for argument in args:
        if argument not in model.arguments:
            known = ", ".join(model.arguments) or "none"
            hint = did_you_mean(argument, model.arguments)
            raise UserError(
                f'{name} takes these args: {known}; but got "{argument}" {hint}'.strip()
            )
    return model.build(num_classes, **args)


def _timm_network(
    name: str, num_classes: int, image_size: int, args: Mapping[str, object], pretrained: bool
) -> Network:
    # Deferred: importing timm takes seconds, and the zoo does not need it.
    from kdscale.models._timm import timm_network

    return timm_network(
        name.removeprefix("timm/"),
        num_classes,
        image_size=image_size,
        args=args,
        pretrained=pretrained,
        other_names=ZOO,
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Runs its block on the CPU with a seeded generator and restores the generator after."""
    # Only the CPU's generator: torch.manual_seed would also reseed those of the GPUs.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
