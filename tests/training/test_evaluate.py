from __future__ import annotations

import pytest
import torch

from kdscale.data import normalise
from kdscale.models import create_model
from kdscale.training import Score, evaluate

from .tasks import assert_same, data


def straightforward(network: torch.nn.Module) -> Score:
    """Returns the score, one image after the other in double precision."""
    split, correct, loss = data().validation, 0, 0.0
    network = network.eval().double()
    for index in range(len(split)):
        image = normalise(split.gather(torch.tensor([index])), data().mean, data().std)
        with torch.no_grad():
            log_probabilities = network(image.double())[0].log_softmax(0)
        label = int(split.labels[index])
        correct += int(log_probabilities.argmax()) == label
        loss -= float(log_probabilities[label])
    return Score(100 * correct / len(split), loss / len(split))


@pytest.mark.parametrize("batch_size", [256, 40])
def test_scores_are_those_of_a_straightforward_computation(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdscale.training._evaluate._BATCH_SIZE", batch_size)
    networks = [create_model("resnet8", 100, args={"width": w}, seed=w) for w in (4, 6)]
    for score, network in zip(evaluate(networks, data().validation, data()), networks, strict=True):
        expected = straightforward(network)
        # Mean over 103 float32 losses near 4.6 against float64.
        assert score.loss == pytest.approx(expected.loss, rel=1e-5)
        assert score.accuracy == pytest.approx(expected.accuracy, rel=1e-12)


def test_each_network_returns_to_its_mode_with_its_state() -> None:
    training, evaluating = (create_model("resnet8", 100, args={"width": 4}, seed=s) for s in (0, 1))
    evaluating.eval()
    before = {name: value.clone() for name, value in training.state_dict().items()}
    evaluate([training, evaluating], data().validation, data())
    assert all(part.training for part in training.modules())
    assert not any(part.training for part in evaluating.modules())
    assert_same(dict(training.state_dict()), before)


def test_no_networks_have_no_scores() -> None:
    assert evaluate([], data().validation, data()) == []
