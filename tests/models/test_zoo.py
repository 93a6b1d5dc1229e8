"""The zoo against the literature's figures: parameters, shapes, cost, and the interface."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdscale.models import (
    ZOO,
    Network,
    count_parameters,
    create_model,
    model_names,
    multiply_accumulates,
)

Maps = tuple[tuple[int, int, int], ...]

RESNET: Maps = ((16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8))
RESNET_X4: Maps = ((32, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8))
RESNET50: Maps = ((64, 32, 32), (256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4))
WRN_2: Maps = ((16, 32, 32), (32, 32, 32), (64, 16, 16), (128, 8, 8))
VGG: Maps = ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4))
MOBILENET: Maps = ((16, 16, 16), (12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2))
SHUFFLE_1: Maps = ((24, 32, 32), (240, 16, 16), (480, 8, 8), (960, 4, 4))
SHUFFLE_2: Maps = ((24, 32, 32), (116, 16, 16), (232, 8, 8), (464, 4, 4))

# name: parameters at 100 classes, stage features of 32-pixel images, embedding
TABLE: dict[str, tuple[int, Maps, int]] = {
    "resnet8": (83_892, RESNET, 64),
    "resnet14": (181_108, RESNET, 64),
    "resnet20": (278_324, RESNET, 64),
    "resnet32": (472_756, RESNET, 64),
    "resnet44": (667_188, RESNET, 64),
    "resnet56": (861_620, RESNET, 64),
    "resnet110": (1_736_564, RESNET, 64),
    "resnet8x4": (1_233_540, RESNET_X4, 256),
    "resnet32x4": (7_433_860, RESNET_X4, 256),
    "resnet50": (23_705_252, RESNET50, 2048),
    "wrn_16_1": (180_916, RESNET, 64),
    "wrn_40_1": (569_780, RESNET, 64),
    "wrn_16_2": (703_284, WRN_2, 128),
    "wrn_40_2": (2_255_156, WRN_2, 128),
    "vgg8": (3_965_028, VGG, 512),
    "vgg11": (9_277_284, VGG, 512),
    "vgg13": (9_462_180, VGG, 512),
    "vgg16": (14_774_436, VGG, 512),
    "vgg19": (20_086_692, VGG, 512),
    "mobilenetv2": (812_836, MOBILENET, 1280),
    "shufflenetv1": (949_258, SHUFFLE_1, 960),
    "shufflenetv2": (1_355_528, SHUFFLE_2, 1024),
}
MEGA_MULTIPLY_ACCUMULATES = {
    "resnet32x4": 1083,
    "resnet8x4": 177,
    "resnet56": 126,
    "resnet20": 41,
    "vgg13": 285,
    "vgg8": 96,
}
# One of each family.
FAMILIES = [
    "resnet8",
    "resnet50",
    "wrn_16_2",
    "vgg8",
    "mobilenetv2",
    "shufflenetv1",
    "shufflenetv2",
]


def images(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))


def test_the_table_names_the_whole_zoo() -> None:
    assert sorted(TABLE) == sorted(model_names()) == sorted(ZOO)


@pytest.mark.parametrize("name", TABLE)
def test_parameters_and_shapes_are_those_of_the_literature(name: str) -> None:
    parameters, stages, embedding = TABLE[name]
    network = create_model(name, 100, seed=0)
    assert count_parameters(network) == parameters
    assert network.shapes.stages == stages
    assert network.shapes.embedding == embedding
    assert network.shapes.classes == 100


@pytest.mark.parametrize("name", MEGA_MULTIPLY_ACCUMULATES)
def test_cost_is_that_of_the_literature(name: str) -> None:
    network = create_model(name, 100, seed=0)
    assert round(multiply_accumulates(network, 32) / 1e6) == MEGA_MULTIPLY_ACCUMULATES[name]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("training", [False, True])
def test_all_ways_to_the_logits_agree_bitwise(name: str, training: bool) -> None:
    network = create_model(name, 10, seed=0).train(training)
    with torch.no_grad():
        logits = network(images())
        everything = network.outputs(images(), network.offers)
        plain = network.outputs(images(), frozenset({"logits"}))
    assert torch.equal(logits, everything.logits)
    assert torch.equal(logits, plain.logits)
    assert plain.embedding is None
    assert not plain.stages


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_have_the_probed_shapes_and_fit_together(name: str) -> None:
    network = create_model(name, 10, seed=0).eval()
    with torch.no_grad():
        outputs = network.outputs(images(), network.offers)
    assert outputs.embedding is not None
    assert outputs.embedding.shape == (2, network.shapes.embedding)
    assert list(outputs.stages) == list(range(len(network.shapes.stages)))
    shapes = tuple(tuple(stage.shape[1:]) for stage in outputs.stages.values())
    assert shapes == network.shapes.stages
    classifier = network.get_submodule("classifier")
    neck = network.get_submodule("neck")
    with torch.no_grad():
        assert torch.equal(classifier(outputs.embedding), outputs.logits)
        # The last stage feature is still what the neck consumed: nothing wrote into it.
        assert torch.equal(neck(outputs.stages[len(outputs.stages) - 1]), outputs.embedding)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_stage_writes_into_the_feature_before_it(name: str) -> None:
    network = create_model(name, 10, seed=0).eval()
    stages = network.get_submodule("stages")
    assert isinstance(stages, nn.ModuleList)
    with torch.no_grad():
        features = images()
        for stage in stages:
            before = features.clone()
            out = stage(features)
            assert torch.equal(features, before)
            features = out


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns_from_the_logits(name: str) -> None:
    # DDP without find_unused_parameters needs this.
    network = create_model(name, 10, seed=0)
    network(images(4)).square().mean().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A convolution's bias before BatchNorm cancels: its gradient is there, but may be zero.
    assert all(p.grad is not None for p in network.parameters())
    assert all(n.endswith("bias") for n in silent)


@given(width=st.integers(1, 20), classes=st.integers(2, 12))
@settings(max_examples=10, deadline=None)
def test_width_sets_the_channels_of_the_first_stage(width: int, classes: int) -> None:
    network = create_model("resnet8", classes, args={"width": width}, seed=0)
    assert [stage[0] for stage in network.shapes.stages] == [width, width, 2 * width, 4 * width]
    assert network.shapes.embedding == 4 * width
    assert network.shapes.classes == classes


@pytest.mark.parametrize("name", ["vgg8", "resnet8", "mobilenetv2"])
def test_larger_images_are_taken(name: str) -> None:
    network = create_model(name, 10, image_size=64, seed=0)
    small = create_model(name, 10, seed=0)
    assert network.shapes.embedding == small.shapes.embedding
    if name == "vgg8":  # as in the literature: another pooling before the last block
        assert [stage[1] for stage in network.shapes.stages] == [64, 32, 16, 8, 4]
    else:
        assert network.shapes.stages[-1][1] == 2 * small.shapes.stages[-1][1]


def test_convolutions_start_with_the_variance_of_he_fan_out() -> None:
    for name in ("resnet56", "wrn_16_2", "vgg8", "mobilenetv2"):
        weight = next(
            m.weight
            for m in reversed(list(create_model(name, 100, seed=0).modules()))
            if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.groups == 1
        )
        expected = (2.0 / (weight.shape[0] * 9)) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=0.1)


def test_vgg_and_mobilenet_start_with_a_small_classifier() -> None:
    for name in ("vgg8", "mobilenetv2"):
        classifier = create_model(name, 100, seed=0).get_submodule("classifier")
        assert isinstance(classifier, nn.Linear)
        assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not classifier.bias.any()


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "shufflenetv1", "shufflenetv2"])
def test_channels_last_changes_nothing_but_rounding(name: str) -> None:
    network = create_model(name, 10, seed=0).eval()
    with torch.no_grad():
        expected = network.outputs(images(), network.offers)
        network = network.to(memory_format=torch.channels_last)
        got = network.outputs(
            images().contiguous(memory_format=torch.channels_last), network.offers
        )
    # Other kernels sum in another order: float32 rounding, some hundred terms a sum.
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-4)
    for number, features in expected.stages.items():
        torch.testing.assert_close(got.stages[number], features, rtol=1e-4, atol=1e-4)


def test_autocast_gives_parts_of_the_lower_precision() -> None:
    network = create_model("resnet8", 10, args={"width": 2}, seed=0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = network.outputs(images(), network.offers)
    assert outputs.class_maps is not None
    assert outputs.logits.dtype == outputs.class_maps.dtype == torch.bfloat16
    assert outputs.logits.isfinite().all()


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "shufflenetv2", "mobilenetv2"])
def test_outputs_compile_to_one_graph(name: str) -> None:
    network = create_model(name, 10, seed=0).eval()
    torch.compiler.reset()
    compiled = torch.compile(network.outputs, backend="eager", fullgraph=True)
    with torch.no_grad():
        got = compiled(images(), network.offers)
        assert torch.equal(got.logits, network(images()))
    assert len(got.stages) == len(got.preactivations) == len(network.shapes.stages)


def test_a_bare_network_does_not_know_its_outputs() -> None:
    with pytest.raises(NotImplementedError):
        Network()(images())
