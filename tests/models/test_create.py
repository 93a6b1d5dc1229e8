"""Creation by name: seeds, RNG, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from kdscale.errors import UserError
from kdscale.models import create_model, model_names

NAMES = ["resnet8", "shufflenetv2", "test_vit"]


def size_of(name: str) -> int:
    return 160 if name == "test_vit" else 32


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_a_function_of_the_seed(name: str) -> None:
    torch.manual_seed(1)
    first = create_model(name, 10, image_size=size_of(name), seed=3).state_dict()
    torch.manual_seed(2)
    again = create_model(name, 10, image_size=size_of(name), seed=3).state_dict()
    other = create_model(name, 10, image_size=size_of(name), seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_the_global_rng_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    create_model(name, 10, image_size=size_of(name), seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_rng_is_left_alone_when_creation_fails() -> None:
    before = torch.get_rng_state()
    with pytest.raises(UserError):
        create_model("resnet8", 10, image_size=0, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_probing_leaves_batch_statistics_and_mode_alone() -> None:
    network = create_model("resnet8", 10, seed=0)
    assert all(module.training for module in network.modules())
    assert not any(b.any() for n, b in network.named_buffers() if n.endswith("running_mean"))
    assert not any(b.any() for n, b in network.named_buffers() if n.endswith("batches_tracked"))


def test_a_default_device_does_not_move_the_weights() -> None:
    expected = create_model("resnet8", 10, seed=0).state_dict()
    with torch.device("meta"):
        got = create_model("resnet8", 10, seed=0).state_dict()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet8x5", "resnet8x4"),
        ("MobileNetV2", "mobilenetv2"),
        ("wrn-40-2", "wrn_40_2"),
        ("convnext_ato", "convnext_atto"),
        ("timm/convnext_ato", "convnext_atto"),
    ],
)
def test_an_unknown_name_gets_the_nearest_known_one(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f'did you mean "{nearest}"') as caught:
        create_model(name, 10, seed=0)
    assert name.removeprefix("timm/") in str(caught.value)


def test_unknown_args_name_the_known_ones() -> None:
    with pytest.raises(UserError, match='resnet8 takes these args: width; but got "widht"'):
        create_model("resnet8", 10, args={"widht": 6}, seed=0)
    with pytest.raises(UserError, match='vgg8 takes these args: none; but got "width"'):
        create_model("vgg8", 10, args={"width": 6}, seed=0)
    # The name says the width of these.
    with pytest.raises(UserError, match="resnet8x4 takes these args: none"):
        create_model("resnet8x4", 10, args={"width": 6}, seed=0)


@pytest.mark.parametrize("width", [0, -4, 1.5, "6", True])
def test_a_width_that_is_no_count_of_channels_is_refused(width: object) -> None:
    with pytest.raises(UserError, match="whole number of at least 1, but got"):
        create_model("resnet8", 10, args={"width": width}, seed=0)


def test_the_zoo_has_no_weights() -> None:
    with pytest.raises(UserError, match="pretrained needs a timm model"):
        create_model("resnet20", 10, pretrained=True, seed=0)


def test_images_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(UserError, match="vgg8 must take 4 x 4 images"):
        create_model("vgg8", 10, image_size=4, seed=0)


def test_names_are_the_zoos() -> None:
    names = model_names()
    assert len(names) == len(set(names)) == 22
    assert "resnet18" not in names


def test_the_zoo_does_not_import_timm() -> None:
    # timm's import costs seconds of every worker's start.
    code = (
        "import sys; from kdscale.models import create_model; create_model('resnet8', 10, seed=0); "
        "sys.exit('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
