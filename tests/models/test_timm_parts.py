"""What timm's models hand out beside logits: maps, classifier, tail, and what they have not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models import Network, create_model
from kdscale.outputs import Need, Outputs, preactivation, present, stage

SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
SMALL_SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 12,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 2, 4),
}
# name, args, image size, map, whether the classifier is one linear map, whether it has a tail
MODELS: list[tuple[str, dict[str, Any], int, tuple[int, int, int] | None, bool, bool]] = [
    ("resnet18", {}, 64, (512, 2, 2), True, True),
    ("test_efficientnet", {}, 64, (256, 2, 2), True, True),
    ("swin_tiny_patch4_window7_224", SMALL_SWIN, 32, (96, 2, 2), True, False),
    ("mixer_s16_224", {"img_size": 64}, 64, (512, 4, 4), True, False),
    # The classifier is a convolution, which no method takes for a matrix.
    ("resnetv2_18", {}, 64, (512, 2, 2), False, True),
    # A BatchNorm stands in front of the classifier, and there are two of both.
    ("levit_128s", {"img_size": 64}, 64, (384, 1, 1), False, False),
    # The class token is the embedding.
    ("vit_tiny_patch16_224", SMALL_VIT, 32, None, True, False),
    # A LayerNorm follows the mean over the tokens.
    ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "avg"}, 32, None, True, False),
    # A LayerNorm, or a convolution and an activation, follow the pooling.
    ("convnext_atto", {}, 64, None, True, True),
    ("mobilenetv3_small_050", {}, 64, None, True, True),
]
IDS = [f"{row[0]}-{row[1].get('global_pool', 'own')}" for row in MODELS]
each_model = pytest.mark.parametrize(
    ("name", "args", "size", "map", "linear", "tail"), MODELS, ids=IDS
)


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7))


def trained(name: str, args: dict[str, Any], size: int) -> Network:
    """Returns a network in eval mode whose norms are none of a new one's."""
    network = create_model(name, 10, image_size=size, args=args, seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, buffer in network.named_buffers():
            if key.endswith("running_mean"):
                buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
                module.weight.add_(torch.randn(module.weight.shape, generator=generator), alpha=0.2)
    return network.eval()


def everything(network: Network, size: int) -> Outputs:
    with torch.no_grad():
        return network.outputs(images(size), network.offers)


@each_model
def test_shapes_say_what_there_is(
    name: str,
    args: dict[str, Any],
    size: int,
    map: tuple[int, int, int] | None,
    linear: bool,
    tail: bool,
) -> None:
    network = trained(name, args, size)
    shapes = network.shapes
    assert (shapes.map, shapes.linear, shapes.tail) == (map, linear, tail)
    assert shapes.stem == 0
    assert not shapes.preactivations
    outputs = everything(network, size)
    assert (outputs.map is not None) == (map is not None)
    assert (outputs.class_maps is not None) == (map is not None and linear)
    assert (outputs.classifier is not None) == linear
    assert (outputs.tail is not None) == tail
    assert not outputs.preactivations
    assert not outputs.norms


@each_model
def test_parts_fit_together(
    name: str,
    args: dict[str, Any],
    size: int,
    map: tuple[int, int, int] | None,
    linear: bool,
    tail: bool,
) -> None:
    network = trained(name, args, size)
    outputs = everything(network, size)
    embedding = present(outputs.embedding)
    with torch.no_grad():
        assert torch.equal(outputs.logits, network(images(size)))
    if map is not None:
        assert present(outputs.map).shape == (2, *map)
        torch.testing.assert_close(present(outputs.map).mean((2, 3)), embedding)
    if map is not None and linear:
        assert present(outputs.class_maps).shape == (2, 10, *map[1:])
        mean = present(outputs.class_maps).mean((2, 3))
        torch.testing.assert_close(mean, outputs.logits, rtol=1e-4, atol=1e-5)
    if linear:
        weight, bias = present(outputs.classifier)
        torch.testing.assert_close(F.linear(embedding, weight, bias), outputs.logits)
    if tail:
        assert len(outputs.stages) >= 4
        for number, features in outputs.stages.items():
            before = features.clone()
            with torch.no_grad():
                rest = present(outputs.tail)(number, features)
                other = present(outputs.tail)(number, features + 1)
            assert torch.equal(rest.logits, outputs.logits)
            assert not torch.equal(other.logits, outputs.logits)
            assert torch.equal(features, before)
            assert list(rest.stages) == list(range(number + 1, len(outputs.stages)))
            for later, found in rest.stages.items():
                assert torch.equal(found, outputs.stages[later])


def test_tokens_lie_on_their_grid() -> None:
    # Without mixing across positions each token sees its own patch alone.
    network = trained("mixer_s16_224", {"img_size": 64}, 64)
    network.get_submodule("model").blocks = nn.Sequential()
    noise = images(64)
    other = noise.clone()
    other[:, :, 16:32, 48:64] += 1  # the patch in row 1, column 3
    with torch.no_grad():
        needs: frozenset[Need] = frozenset({"map"})
        first, second = (present(network.outputs(x, needs).map) for x in (noise, other))
    changed = (first != second).any(1)
    expected = torch.zeros(2, 4, 4, dtype=torch.bool)
    expected[:, 1, 3] = True
    assert torch.equal(changed, expected)


def test_a_classifier_without_bias_has_one_of_zeros() -> None:
    network = create_model("resnet10t", 10, seed=0)
    model: Any = network.get_submodule("model")
    model.fc = nn.Linear(512, 10, bias=False)
    weight, bias = present(everything(network, 32).classifier)
    assert weight is model.fc.weight
    assert torch.equal(bias, torch.zeros(10))


@pytest.mark.parametrize("need", ["map", "class_maps", "classifier", "tail", stage(1)])
def test_only_what_is_needed_is_handed_out(need: Need) -> None:
    network = trained("resnet10t", {}, 32)
    with torch.no_grad():
        outputs = network.outputs(images(32), frozenset({need}))
        assert torch.equal(outputs.logits, network(images(32)))
    parts = {
        "embedding": outputs.embedding,
        "map": outputs.map,
        "class_maps": outputs.class_maps,
        "classifier": outputs.classifier,
        "tail": outputs.tail,
    }
    handed_out = {part for part, value in parts.items() if value is not None}
    assert handed_out | {stage(number) for number in outputs.stages} == {need}


def test_a_stage_alone_is_that_of_all() -> None:
    network = trained("resnet10t", {}, 32)
    expected = everything(network, 32).stages
    with torch.no_grad():
        got = network.outputs(images(32), frozenset({stage(3), stage(1)})).stages
    assert set(got) == {1, 3}
    assert all(torch.equal(got[number], expected[number]) for number in got)


@pytest.mark.parametrize("need", ["map", "class_maps", "tail", stage(4), preactivation(1)])
def test_what_a_network_has_not_is_refused_by_name(need: Need) -> None:
    network = trained("vit_tiny_patch16_224", SMALL_VIT, 32)
    with pytest.raises(ValueError, match=f"the network has no {need}; it has classifier, emb"):
        network.outputs(images(32), frozenset({need}))


def test_the_tail_leaves_running_statistics_alone() -> None:
    network = create_model("resnetv2_18", 10, image_size=64, seed=0)
    network.train()
    outputs = network.outputs(images(64), network.offers)
    before = [buffer.clone() for buffer in network.buffers()]
    rest = present(outputs.tail)(1, outputs.stages[1])
    torch.testing.assert_close(rest.logits, outputs.logits, rtol=1e-4, atol=1e-5)
    assert before
    assert all(torch.equal(*pair) for pair in zip(network.buffers(), before, strict=True))


def test_a_tail_starts_after_a_stage() -> None:
    outputs = everything(trained("resnet10t", {}, 32), 32)
    for number in (-1, 5):
        with pytest.raises(ValueError, match="must start after one of 5 stages"):
            present(outputs.tail)(number, outputs.stages[1])


def test_a_batchnorm_after_the_pooling_is_no_rounding() -> None:
    # A new one divides by the root of 1 + 1e-5 alone; the embedding is still not the map's mean.
    class Normed(nn.Module):
        num_features = 8

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 4, 4)
            self.norm = nn.BatchNorm1d(8)
            self.fc = nn.Linear(8, 10)

        def get_classifier(self) -> nn.Module:
            return self.fc

        def forward_features(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(x)
            return out

        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
            embedding: Tensor = self.norm(x.mean((2, 3)))
            return embedding if pre_logits else self.get_classifier()(embedding)

        def forward(self, x: Tensor) -> Tensor:
            return self.forward_head(self.forward_features(x))

    from kdscale.models._timm import TimmNetwork

    network = TimmNetwork(Normed(), 32)
    assert "classifier" in network.offers
    assert "map" not in network.offers
    assert "tail" not in network.offers


def test_probing_leaves_modes_statistics_and_rng_alone() -> None:
    rng = torch.get_rng_state()
    network = create_model("resnet10t", 10, args={"drop_rate": 0.5}, seed=0)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(module.training for module in network.modules())
    assert not any(b.any() for n, b in network.named_buffers() if n.endswith("batches_tracked"))
