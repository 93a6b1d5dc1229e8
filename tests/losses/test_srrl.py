import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses import METHODS, PairShapes, SRRLAdaptor, srrl
from kdscale.outputs import OutputShapes

from .pairs import trial_of


def draw(seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((6, 5), (6, 5), (3, 5), (3,))
    a, e, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return a, e, F.linear(e, weight, bias), weight, bias


def test_zero_where_the_adapted_embedding_is_the_teachers() -> None:
    _, e, z, weight, bias = draw(0)
    assert srrl(e, e, z, weight, bias, alpha=1.0, beta=1.0) == 0


def test_its_parts() -> None:
    a, e, z, weight, bias = draw(1)
    features = srrl(a, e, z, weight, bias, alpha=1.0, beta=0.0)
    scores = srrl(a, e, z, weight, bias, alpha=0.0, beta=1.0)
    torch.testing.assert_close(features, (a - e).square().mean())
    torch.testing.assert_close(scores, ((a - e) @ weight.T).square().mean())
    both = srrl(a, e, z, weight, bias, alpha=2.0, beta=3.0)
    torch.testing.assert_close(both, 2 * features + 3 * scores)


def test_adaptor_is_the_official_convolution_on_a_pooled_embedding() -> None:
    torch.manual_seed(0)
    adaptor = SRRLAdaptor(4, 5)
    torch.manual_seed(0)
    official = nn.Sequential(nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU())
    embedding = torch.randn(6, 4)
    expected = official(embedding[:, :, None, None]).flatten(1)
    torch.testing.assert_close(adaptor(embedding), expected)


def test_adaptor_trains_and_the_teachers_classifier_does_not() -> None:
    trial = trial_of("srrl")
    assert isinstance(trial.term, nn.Module)
    names = {name for name, _ in trial.term.named_parameters()}
    assert names == {"adaptor.project.weight", "adaptor.norm.weight", "adaptor.norm.bias"}
    trial.term(trial.batch).backward()
    for parameter in trial.term.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()
    assert "adaptor.norm.running_mean" in trial.term.state_dict()


def test_refusals() -> None:
    method = METHODS["srrl"]
    linear, other = OutputShapes(10, 8, linear=True), OutputShapes(10, 8)
    assert "must be linear, but this teacher has none" in method.refuse(
        PairShapes(linear, other, 4), {}
    )
    assert "at least 2 images, but got 1" in method.refuse(PairShapes(other, linear, 1), {})
    assert method.refuse(PairShapes(other, linear, 4), {}) == ""
    a, e, z, weight, bias = draw(2)
    with pytest.raises(ValueError, match=r"\[B, D\]"):
        srrl(a[:, :2], e, z, weight, bias, alpha=1.0, beta=1.0)
