"""timm's models behind the same interface: CNN, ViT, Swin and MLP."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdscale.errors import UserError
from kdscale.models import Network, create_model, multiply_accumulates
from kdscale.outputs import Need, stage

SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 6, "num_heads": 3}
SMALL_SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 12,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 2, 4),
}
# name, args, image size, embedding, stage features
MODELS: list[tuple[str, dict[str, Any], int, int, list[tuple[int, int, int]]]] = [
    ("vit_tiny_patch16_224", SMALL_VIT, 32, 24, [(24, 4, 4)] * 4),
    (
        "swin_tiny_patch4_window7_224",
        SMALL_SWIN,
        32,
        96,
        [(12, 16, 16), (24, 8, 8), (48, 4, 4), (96, 2, 2)],
    ),
    ("resmlp_12_224", {"img_size": 32}, 32, 384, [(384, 2, 2)] * 4),
    ("mixer_s16_224", {"img_size": 32}, 32, 512, [(512, 2, 2)] * 4),
    (
        "resnet10t",
        {},
        32,
        512,
        [(64, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)],
    ),
    (
        "mobilenetv3_small_050",
        {},
        64,
        1024,
        [(16, 32, 32), (8, 16, 16), (16, 8, 8), (24, 4, 4), (288, 2, 2)],
    ),
    ("test_convnext", {}, 64, 64, [(24, 16, 16), (32, 8, 8), (48, 4, 4), (64, 2, 2)]),
]
# A classifier that is a convolution, one with its own BatchNorm, and a pair of classifiers.
WHOLE_HEADS: list[tuple[str, dict[str, Any], int]] = [
    ("resnetv2_18", {}, 32),
    ("efficientvit_m0", {"img_size": 64}, 64),
    ("deit_tiny_distilled_patch16_224", SMALL_VIT, 32),
]


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7))


def disturbed(network: Network) -> Network:
    """Returns the network with statistics as after training, lest BatchNorm be the identity."""
    generator = torch.Generator().manual_seed(3)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
    return network


@pytest.mark.parametrize(
    ("name", "args", "size", "embedding", "stages"), MODELS, ids=[row[0] for row in MODELS]
)
def test_logits_embedding_and_stages_fit_together(
    name: str,
    args: dict[str, Any],
    size: int,
    embedding: int,
    stages: list[tuple[int, int, int]],
) -> None:
    network = create_model(name, 10, image_size=size, args=args, seed=0)
    assert network.training
    assert network.shapes.classes == 10
    assert network.shapes.embedding == embedding
    assert list(network.shapes.stages) == stages
    disturbed(network).eval()
    model: Any = network.get_submodule("model")
    with torch.no_grad():
        outputs = network.outputs(images(size), network.offers)
        assert outputs.embedding is not None
        assert torch.equal(outputs.logits, model(images(size)))
        assert torch.equal(outputs.logits, network(images(size)))
        assert torch.equal(outputs.logits, model.get_classifier()(outputs.embedding))
    assert outputs.embedding.shape == (2, embedding)
    assert [tuple(part.shape[1:]) for part in outputs.stages.values()] == stages


@pytest.mark.parametrize(("name", "args", "size"), WHOLE_HEADS, ids=[row[0] for row in WHOLE_HEADS])
def test_unusual_heads_run_as_a_whole(name: str, args: dict[str, Any], size: int) -> None:
    network = disturbed(create_model(name, 10, image_size=size, args=args, seed=0)).eval()
    with torch.no_grad():
        outputs = network.outputs(images(size), network.offers)
        assert torch.equal(outputs.logits, network(images(size)))
    assert outputs.embedding is not None
    assert outputs.embedding.shape == (2, network.shapes.embedding)


@pytest.mark.parametrize("needs", [{"logits"}, {"embedding"}, {stage(2)}, {"embedding", stage(2)}])
def test_only_what_is_needed_is_handed_out(needs: set[Need]) -> None:
    network = create_model("vit_tiny_patch16_224", 10, args=SMALL_VIT, seed=0).eval()
    with torch.no_grad():
        outputs = network.outputs(images(32), frozenset(needs))
        assert torch.equal(outputs.logits, network(images(32)))
    assert (outputs.embedding is not None) == ("embedding" in needs)
    assert set(outputs.stages) == ({2} if stage(2) in needs else set())


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_tiny_patch16_224", SMALL_VIT | {"drop_path_rate": 0.5, "drop_rate": 0.5}),
        ("resnet10t", {"drop_rate": 0.5}),
    ],
)
def test_training_draws_the_same_dropout_on_every_way(name: str, args: dict[str, Any]) -> None:
    network = create_model(name, 10, args=args, seed=0).train()
    logits = []
    for needs in ({"logits"}, {"embedding"}, {stage(1)}, network.offers):
        torch.manual_seed(5)
        with torch.no_grad():
            logits.append(network.outputs(images(32), frozenset(needs)).logits)
    assert all(torch.equal(other, logits[0]) for other in logits[1:])


def test_uniform_blocks_are_cut_into_four_stages() -> None:
    shallow = create_model("vit_tiny_patch16_224", 10, args=SMALL_VIT | {"depth": 2}, seed=0)
    deep = create_model("vit_tiny_patch16_224", 10, args=SMALL_VIT | {"depth": 12}, seed=0)
    assert shallow.stage_indices == [0, 1]
    assert deep.stage_indices == [2, 5, 8, 11]


def test_stages_learn() -> None:
    network = create_model("vit_tiny_patch16_224", 10, args=SMALL_VIT, seed=0)
    outputs = network.outputs(images(32), network.offers)
    torch.stack([part.square().mean() for part in outputs.stages.values()]).sum().backward()
    assert network.get_parameter("model.patch_embed.proj.weight").grad is not None


def test_cost_of_a_transformer_counts_its_attention() -> None:
    tokens, dim, classes, depth = 17, 24, 10, 2
    network = create_model(
        "vit_tiny_patch16_224", classes, args=SMALL_VIT | {"depth": depth}, seed=0
    )
    block = tokens * (3 * dim * dim + dim * dim + 8 * dim * dim) + 2 * tokens * tokens * dim
    patches = 16 * (3 * 8 * 8) * dim
    assert multiply_accumulates(network, 32) == patches + depth * block + dim * classes


def test_the_prefix_means_timm_where_the_zoo_has_the_name_too() -> None:
    zoo = create_model("resnet50", 7, seed=0)
    timms = create_model("timm/resnet50", 7, seed=0)
    assert zoo.shapes.stages[0] == (64, 32, 32)
    assert timms.shapes.stages[0] == (64, 16, 16)
    assert timms.shapes.classes == 7


def test_outputs_compile() -> None:
    network = create_model("resnet10t", 10, seed=0).eval()
    torch.compiler.reset()
    compiled = torch.compile(network.outputs, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(images(32), network.offers).logits, network(images(32)))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet10t", {"wdith": 3}, "timm cannot create resnet10t with {'wdith': 3}"),
        ("vit_tiny_patch16_224", {}, r"must take 32 x 32 images.*img_size: 32"),
        ("resnet10t", {"global_pool": ""}, "resnet10t must take 32 x 32 images"),
    ],
)
def test_what_timm_refuses_is_the_users_error(
    name: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        create_model(name, 10, args=args, seed=0)


def test_an_unknown_weight_tag_is_the_users_error() -> None:
    with pytest.raises(UserError, match="Invalid pretrained tag"):
        create_model("resnet18.nosuch", 10, pretrained=True, seed=0)
