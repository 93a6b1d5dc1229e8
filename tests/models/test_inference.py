"""The inference-only form: every output of every network is what the plain one hands out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdscale.models import ZOO, Network, create_model, inference_form
from kdscale.models._inference import FoldedNorm
from kdscale.outputs import LOGITS, Outputs

from .test_timm_parts import MODELS

TIMM = [
    *((row[0], row[1], row[2]) for row in MODELS),
    ("densenet121", {}, 64),  # BatchNorms before convolutions, and concatenations
    ("tf_efficientnet_b0", {}, 64),  # convolutions that pad otherwise than torch's
    ("repvgg_a0", {}, 64),  # two convolutions and a BatchNorm alone, in parallel
    ("inception_v3", {}, 96),
]
# Those in which a BatchNorm does not follow a layer that feeds it alone.
PARTLY = ("wrn", "resnetv2", "levit", "densenet", "repvgg")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def lived(network: Network) -> Network:
    """Returns a network in eval mode whose BatchNorms are none of a new one's."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, _BatchNorm):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                for tensor in (norm.weight, norm.bias, norm.running_mean):
                    tensor += 0.2 * torch.randn(tensor.shape, generator=generator)
                norm.running_var *= torch.rand(len(norm.weight), generator=generator) + 0.5
    return network.eval()


def parts_of(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    """Yields everything in the outputs by name, and what the tail makes of changed features."""
    for name, part in vars(outputs).items():
        if isinstance(part, Tensor):
            yield name, part
    for kind, numbered in (("stage", outputs.stages), ("before", outputs.preactivations)):
        for number, part in numbered.items():
            yield f"{kind} {number}", part
    affines = {f"norm {number}": norm for number, norm in outputs.norms.items()}
    if outputs.classifier is not None:
        affines["classifier"] = outputs.classifier
    for name, (weight, bias) in affines.items():
        yield f"{name} weight", weight
        yield f"{name} bias", bias
    if outputs.tail is not None:
        for number, features in list(outputs.stages.items())[:-1]:
            changed = features + features.abs().mean()
            for name, part in parts_of(outputs.tail(number, changed)):
                yield f"tail {number} {name}", part


def assert_agree(network: Network, size: int) -> int:
    """Holds that a network and its form agree in both types; returns how many norms are left."""
    left = 0
    for dtype, tolerance in TOLERANCE.items():
        network = network.to(dtype)
        form = inference_form(network, size)
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7)).to(dtype)
        assert form.image_format is not None
        with torch.no_grad():
            wanted = dict(parts_of(network.outputs(images, network.offers)))
            images = images.contiguous(memory_format=form.image_format)
            got = dict(parts_of(form.outputs(images, network.offers)))
            logits = form(images)
        assert list(got) == list(wanted)
        for name, want in wanted.items():
            assert got[name].shape == want.shape, name
            assert (got[name] - want).abs().max() <= tolerance * want.abs().max(), name
        assert torch.equal(logits, got["logits"])
        left = sum(isinstance(part, _BatchNorm) for part in form.modules())
    return left


@pytest.mark.parametrize("name", ZOO)
def test_a_network_of_the_zoo_agrees_with_its_form(name: str) -> None:
    network = lived(create_model(name, 7, seed=0))
    assert (assert_agree(network, 32) == 0) == (not name.startswith(PARTLY))


@pytest.mark.parametrize(("name", "args", "size"), TIMM, ids=lambda x: x if type(x) is str else "")
def test_a_network_of_timm_agrees_with_its_form(
    name: str, args: dict[str, object], size: int
) -> None:
    network = lived(create_model(f"timm/{name}", 7, image_size=size, args=args, seed=0))
    assert (assert_agree(network, size) == 0) == (not name.startswith(PARTLY))


def test_the_network_itself_stays_as_it_is() -> None:
    network = lived(create_model("resnet8", 7, seed=0))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    form = inference_form(network, 32)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert network.image_format is None
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in form.parameters())
    assert (form.shapes, form.offers, form.stem) == (network.shapes, network.offers, network.stem)


class Shared(Network):
    """A convolution that two BatchNorms take, one that runs twice, and one that is handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))

    def outputs(self, images: Tensor, needs: frozenset[str]) -> Outputs:
        first, second, third, alone = self.layers
        x = first(images)
        x = self.norms[0](x) + self.norms[1](x)
        x = self.norms[2](second(second(x)))
        kept = third(x)
        x = self.norms[4](alone(self.norms[3](kept).relu()))
        embedding = x.mean((2, 3))
        return Outputs(embedding, embedding=embedding, stages={0: kept} if needs - LOGITS else {})


def test_only_what_has_nobody_else_is_folded() -> None:
    network = lived(Shared())
    form = inference_form(network, 8)
    folded = [isinstance(form.get_submodule(f"norms.{number}"), FoldedNorm) for number in range(5)]
    assert folded == [False, False, False, False, True]
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(form(images), network(images))


def test_a_batchnorm_without_statistics_of_its_own_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    form = inference_form(_Plain(network), 8)
    assert isinstance(form.get_submodule("body.1"), nn.BatchNorm2d)


def test_a_format_that_is_unsafe_on_this_processor_is_not_taken() -> None:
    form = inference_form(create_model("resnet8", 7, args={"width": 4}, seed=0), 32)
    assert form.image_format is torch.contiguous_format


class _Plain(Network):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def outputs(self, images: Tensor, needs: frozenset[str]) -> Outputs:
        return Outputs(self.body(images).mean((2, 3)))
