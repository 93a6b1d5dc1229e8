"""What the zoo hands out beside logits: maps, pre-activations and their norms, classifier, tail."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models import Network, create_model
from kdscale.models._network import keeping_statistics
from kdscale.outputs import LOGITS, Need, Outputs, preactivation, present, stage

# One of each family, and the BatchNorm before each stage's last ReLU: RepDistiller's
# get_bn_before_relu, and the stem's own.
NORMS: dict[str, dict[int, str]] = {
    "resnet14": {
        0: "stages.0.1",
        1: "stages.1.1.body.1.1",
        2: "stages.2.1.body.1.1",
        3: "stages.3.1.body.1.1",
    },
    "resnet50": {
        0: "stages.0.1",
        1: "stages.1.2.body.2.1",
        2: "stages.2.3.body.2.1",
        3: "stages.3.5.body.2.1",
        4: "stages.4.2.body.2.1",
    },
    "wrn_16_2": {
        0: "stages.1.0.activation.0",
        1: "stages.2.0.activation.0",
        2: "stages.3.0.activation.0",
        3: "neck.0.0",
    },
    "vgg11": {0: "stages.0.1", 1: "stages.1.2", 2: "stages.2.5", 3: "stages.3.5", 4: "stages.4.5"},
    "mobilenetv2": {
        0: "stages.0.1",
        1: "stages.1.2.body.2.1",
        2: "stages.2.2.body.2.1",
        3: "stages.3.6.body.2.1",
        4: "stages.4.3.body.2.1",
    },
    "shufflenetv1": {
        0: "stages.0.1",
        1: "stages.1.3.body.3.1",
        2: "stages.2.7.body.3.1",
        3: "stages.3.3.body.3.1",
    },
    # The other stages' last BatchNorm normalises only the half that does not pass through.
    "shufflenetv2": {0: "stages.0.1"},
}
FAMILIES = list(NORMS)
CLASSES = 7


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))


def trained(name: str) -> Network:
    """Returns a network in eval mode whose parameters and statistics are none of a new one's."""
    network = create_model(name, CLASSES, seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    assert tensor is not None
                    tensor += 0.2 * torch.randn(tensor.shape, generator=generator)
                assert module.running_var is not None
                module.running_var *= torch.rand(len(module.weight), generator=generator) + 0.5
        network.get_parameter("classifier.bias").normal_(generator=generator)
    return network.eval()


def everything(network: Network) -> Outputs:
    with torch.no_grad():
        return network.outputs(images(), network.offers)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_maps_mean_is_the_embedding_and_the_class_maps_mean_the_logits(name: str) -> None:
    network = trained(name)
    outputs = everything(network)
    map, class_maps = present(outputs.map), present(outputs.class_maps)
    assert map.shape[1:] == network.shapes.map
    assert class_maps.shape[1:] == (CLASSES, *map.shape[2:])
    torch.testing.assert_close(map.mean((2, 3)), present(outputs.embedding))
    torch.testing.assert_close(class_maps.mean((2, 3)), outputs.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_classifier_leads_from_the_embedding_to_the_logits(name: str) -> None:
    outputs = everything(trained(name))
    weight, bias = present(outputs.classifier)
    assert torch.equal(F.linear(present(outputs.embedding), weight, bias), outputs.logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_say_what_there_is(name: str) -> None:
    shapes = trained(name).shapes
    assert shapes.stem == 1
    assert shapes.linear
    assert shapes.preactivations
    assert shapes.tail
    assert not shapes.dense


@pytest.mark.parametrize("name", ["resnet14", "resnet50", "vgg11", "shufflenetv1"])
def test_a_stage_is_the_relu_of_its_preactivation(name: str) -> None:
    outputs = everything(trained(name))
    assert list(outputs.preactivations) == list(outputs.stages)
    for number, features in outputs.stages.items():
        before = outputs.preactivations[number]
        assert torch.equal(F.relu(before), features)
        assert (before < 0).any()


def test_the_preactivation_of_a_wide_resnet_is_what_the_next_norm_makes_of_the_stage() -> None:
    network = trained("wrn_16_2")
    outputs = everything(network)
    for number, features in outputs.stages.items():
        norm = network.get_submodule(NORMS["wrn_16_2"][number])
        with torch.no_grad():
            assert torch.equal(outputs.preactivations[number], norm(features))
    assert torch.equal(F.relu(outputs.preactivations[3]), present(outputs.map))


def test_a_linear_bottleneck_is_its_own_preactivation() -> None:
    outputs = everything(trained("mobilenetv2"))
    assert torch.equal(F.relu(outputs.preactivations[0]), outputs.stages[0])
    for number in range(1, 5):
        assert torch.equal(outputs.preactivations[number], outputs.stages[number])
        assert (outputs.stages[number] < 0).any()


def test_the_preactivation_of_shufflenetv2_is_not_shuffled() -> None:
    outputs = everything(trained("shufflenetv2"))
    assert torch.equal(F.relu(outputs.preactivations[0]), outputs.stages[0])
    shuffle = nn.ChannelShuffle(2)
    for number in range(1, 4):
        kept, before = outputs.preactivations[number].chunk(2, dim=1)
        features = shuffle(torch.cat([kept, F.relu(before)], dim=1))
        assert torch.equal(features, outputs.stages[number])
        assert (before < 0).any()
        assert (kept >= 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_are_those_before_the_last_relu(name: str) -> None:
    network = trained(name)
    norms = everything(network).norms
    assert list(norms) == list(NORMS[name])
    for number, (weight, bias) in norms.items():
        assert weight is network.get_parameter(f"{NORMS[name][number]}.weight")
        assert bias is network.get_parameter(f"{NORMS[name][number]}.bias")


@pytest.mark.parametrize("name", ["vgg11", "wrn_16_2"])
def test_norms_tell_the_preactivations_mean_and_deviation(name: str) -> None:
    # OFD's margins rest on this; where a shortcut is added after the norm it holds less.
    network = trained(name).train()
    outputs = network.outputs(images(4), network.offers)
    for number, (weight, bias) in outputs.norms.items():
        std, mean = torch.std_mean(outputs.preactivations[number], (0, 2, 3), correction=0)
        torch.testing.assert_close(mean, bias, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(std, weight.abs(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tail_goes_on_from_any_stage(name: str) -> None:
    network = trained(name)
    outputs = everything(network)
    tail = present(outputs.tail)
    for number, features in outputs.stages.items():
        before = features.clone()
        with torch.no_grad():
            rest = tail(number, features)
            assert torch.equal(rest.logits, outputs.logits)
            assert torch.equal(features, before)
            assert not torch.equal(tail(number, features + 1).logits, outputs.logits)
        assert list(rest.stages) == [later for later in outputs.stages if later > number]
        for later, found in rest.stages.items():
            assert torch.equal(found, outputs.stages[later])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tail_normalises_by_the_batch_and_leaves_running_statistics_alone(name: str) -> None:
    network = trained(name).train()
    outputs = network.outputs(images(4), network.offers)
    before = {key: buffer.clone() for key, buffer in network.named_buffers()}
    tail = present(outputs.tail)
    # In evaluation mode, or with what the running statistics are by now, it would not be equal.
    torch.testing.assert_close(tail(1, outputs.stages[1]).logits, outputs.logits)
    tail(1, 5 * outputs.stages[1]).logits.sum().backward()
    with pytest.raises(RuntimeError):
        tail(1, outputs.stages[1][:, :1])
    for key, buffer in network.named_buffers():
        assert torch.equal(buffer, before[key]), key
    network(images(4))
    tracked = [key for key in before if key.endswith("num_batches_tracked")]
    assert all(network.get_buffer(key) == before[key] + 1 for key in tracked)


@pytest.mark.parametrize("tracks", [True, False])
def test_statistics_are_kept_only_inside_the_block(tracks: bool) -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=tracks)

    def fail() -> None:
        with keeping_statistics(nn.Sequential(norm)):
            norm(images())
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert norm.track_running_stats == tracks
    if tracks:
        assert norm.num_batches_tracked == 0
        norm(images())
        assert norm.num_batches_tracked == 1


def test_the_tail_compiles() -> None:
    network = trained("resnet14").train()
    features = torch.randn(4, 16, 32, 32)
    torch.compiler.reset()
    tail = present(network.outputs(images(), frozenset({"tail"})).tail)
    expected = tail(1, features)
    before = [buffer.clone() for buffer in network.buffers()]
    got = torch.compile(tail, backend="eager")(1, features)
    torch.testing.assert_close(got.logits, expected.logits)
    assert all(torch.equal(*pair) for pair in zip(network.buffers(), before, strict=True))


def test_the_tail_has_gradients_and_knows_its_stages() -> None:
    network = trained("resnet14")
    outputs = everything(network)
    tail = present(outputs.tail)
    features = outputs.stages[2].clone().requires_grad_()
    tail(2, features).logits.square().sum().backward()
    assert features.grad is not None
    assert features.grad.any()
    for number in (-1, 4):
        with pytest.raises(ValueError, match=f"stage must be 0 to 3, but got {number}"):
            tail(number, features)


SINGLE: list[Need] = [
    "embedding",
    "map",
    "class_maps",
    "classifier",
    "tail",
    stage(1),
    preactivation(1),
]


@pytest.mark.parametrize("need", SINGLE)
@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1"])
def test_only_what_is_needed_is_handed_out(name: str, need: Need) -> None:
    network = trained(name)
    with torch.no_grad():
        outputs = network.outputs(images(), frozenset({need}))
        assert torch.equal(outputs.logits, network(images()))
    parts = {
        "embedding": outputs.embedding,
        "map": outputs.map,
        "class_maps": outputs.class_maps,
        "classifier": outputs.classifier,
        "tail": outputs.tail,
    }
    handed_out = {part for part, value in parts.items() if value is not None}
    handed_out |= {stage(number) for number in outputs.stages}
    handed_out |= {preactivation(number) for number in outputs.preactivations}
    assert handed_out == {need}
    assert set(outputs.norms) == set(outputs.preactivations)


@pytest.mark.parametrize("name", FAMILIES)
def test_asking_for_parts_changes_neither_statistics_nor_gradients(name: str) -> None:
    plain, asked = (trained(name).train() for _ in range(2))
    plain.outputs(images(4), LOGITS).logits.square().sum().backward()
    outputs = asked.outputs(images(4), asked.offers)
    outputs.logits.square().sum().backward()
    for (key, expected), got in zip(plain.named_buffers(), asked.buffers(), strict=True):
        assert torch.equal(got, expected), key
    for (key, parameter), other in zip(plain.named_parameters(), asked.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad, parameter.grad, msg=key)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_parts_learn_together(name: str) -> None:
    # A ReLU that writes into a pre-activation would fail this backward pass.
    network = trained(name).train()
    outputs = network.outputs(images(4), network.offers)
    parts = [*outputs.stages.values(), *outputs.preactivations.values()]
    parts += [present(outputs.map), present(outputs.class_maps), present(outputs.embedding)]
    torch.stack([part.square().mean() for part in parts]).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", ["wrn_16_2", "mobilenetv2", "shufflenetv2"])
def test_the_neck_runs_once_for_all_parts(name: str) -> None:
    network = trained(name).train()
    runs: list[nn.Module] = []
    for module in network.get_submodule("neck").modules():
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d | nn.AdaptiveAvgPool2d):
            module.register_forward_hook(lambda part, _, __: runs.append(part))
    network.outputs(images(), network.offers)
    assert len(runs) == len(set(runs)) >= 2


@pytest.mark.parametrize(
    ("need", "message"),
    [
        (stage(4), "the network has no stage 4; it has class_maps, classifier, embedding, logits"),
        (preactivation(9), "no preactivation 9"),
        ("stages", "no stages"),
    ],
)
def test_what_a_network_has_not_is_refused_by_name(need: Need, message: str) -> None:
    network = trained("resnet8")
    with pytest.raises(ValueError, match=message):
        network.outputs(images(), frozenset({"logits", need}))


@pytest.mark.parametrize("size", [32, 64])
def test_the_map_follows_the_size_of_the_images(size: int) -> None:
    network = create_model("mobilenetv2", CLASSES, image_size=size, seed=0)
    assert network.shapes.map == (1280, size // 16, size // 16)


# Digests of the names under which checkpoints keep the weights.
STATE_NAMES = {
    "resnet14": "d53aeb5f3fe64226",
    "resnet50": "239f28c9c0b24886",
    "wrn_16_2": "f047985c20cd5b6e",
    "vgg11": "c2b550c6e70e1947",
    "mobilenetv2": "92d4c082d62ea215",
    "shufflenetv1": "dc39da2ba7099c63",
    "shufflenetv2": "61b49903182c4500",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_keep_their_names(name: str) -> None:
    names = "\n".join(create_model(name, CLASSES, seed=0).state_dict())
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == STATE_NAMES[name]


def test_the_shipped_teacher_loads() -> None:
    folder = Path(str(resources.files("kdscale.models") / "weights"))
    saved = torch.load(folder / "icons100-resnet8.pt", weights_only=True)
    network = create_model(saved["model"], saved["num_classes"], args=saved["args"], seed=0)
    network.load_state_dict(saved["state"])
