import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.errors import UserError
from kdscale.losses import METHODS, Batch, PairShapes
from kdscale.models import Network, create_model, rewrap, unwrap, wrap_student, wrapping
from kdscale.models._network import probe_shapes
from kdscale.models._norm import Norm
from kdscale.models._simkd import SimKD
from kdscale.outputs import LOGITS, present

SIZE = 16
STUDENTS = ("resnet8", "wrn_16_1", "timm/test_resnet")
HYPERPARAMETERS = {"simkd": {"factor": 2}, "norm": {"copies": 3}}
KINDS = ("simkd", "norm")


def student_of(name: str, seed: int = 1) -> Network:
    args = {"width": 8} if name == "resnet8" else {}
    return create_model(name, 5, image_size=SIZE, args=args, seed=seed)


def teacher_of(name: str = "resnet8") -> Network:
    return create_model(name, 5, image_size=SIZE, args={"width": 12}, seed=2).eval()


def wrap(kind: str, student: Network, teacher: Network, seed: int = 3) -> Network:
    return wrap_student(kind, student, teacher, HYPERPARAMETERS[kind], seed)  # type: ignore[arg-type]


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))


def used(network: Network) -> Network:
    """Returns the network in eval mode after two training passes, with moved BatchNorms."""
    torch.manual_seed(11)
    network.train()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    with torch.no_grad():
        for _ in range(2):
            network(images())
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STUDENTS)
def test_shapes_are_those_of_the_outputs(kind: str, name: str) -> None:
    wrapped = wrap(kind, student_of(name), teacher_of())
    assert wrapped.shapes == probe_shapes(wrapped, SIZE)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_fit_each_other(kind: str) -> None:
    wrapped = used(wrap(kind, student_of("resnet8"), teacher_of()))
    with torch.no_grad():
        outputs = wrapped.outputs(images(), wrapped.offers)
        assert torch.equal(wrapped(images()), outputs.logits)
        assert torch.equal(wrapped.outputs(images(), LOGITS).logits, outputs.logits)
    classifier = present(outputs.classifier)
    torch.testing.assert_close(F.linear(present(outputs.embedding), *classifier), outputs.logits)
    torch.testing.assert_close(present(outputs.class_maps).mean((2, 3)), outputs.logits)
    assert len(outputs.stages) == len(outputs.preactivations) == 4
    with pytest.raises(ValueError, match="the network has no tail"):
        wrapped.outputs(images(), frozenset({"tail"}))
    nothing_more = wrapped.outputs(images(), LOGITS)
    assert nothing_more.map is None
    assert not nothing_more.stages


@pytest.mark.parametrize("kind", KINDS)
def test_every_trainable_parameter_gets_a_gradient_of_the_loss(kind: str) -> None:
    teacher = teacher_of()
    wrapped = wrap(kind, student_of("resnet8"), teacher)
    method = METHODS[kind]
    hyperparameters = method.complete(HYPERPARAMETERS[kind])
    shapes = PairShapes(wrapped.shapes, teacher.shapes, 4)
    assert method.refusal(shapes, hyperparameters) == ""
    needs = method.needs(shapes, hyperparameters)
    with torch.no_grad():
        of_teacher = teacher.outputs(images(), needs.teacher)
    outputs = wrapped.outputs(images(), needs.student)
    target = torch.tensor([0, 1, 2, 3])
    term = method.build(shapes, hyperparameters)
    loss = term(Batch(outputs, of_teacher, target)) + 0.0 * F.cross_entropy(outputs.logits, target)
    loss.backward()  # type: ignore[no-untyped-call]
    missing = [name for name, p in wrapped.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert any(p.grad is not None and p.grad.any() for p in wrapped.parameters())


def test_simkd_classifies_as_the_teacher_does() -> None:
    teacher = teacher_of()
    wrapped = wrap("simkd", student_of("resnet8"), teacher)
    assert isinstance(wrapped, SimKD)
    with torch.no_grad():
        of_teacher = teacher.outputs(images(), frozenset({"embedding", "classifier"}))
    weight, bias = present(of_teacher.classifier)
    assert torch.equal(wrapped.weight, weight)
    assert torch.equal(wrapped.bias, bias)
    torch.testing.assert_close(
        F.linear(present(of_teacher.embedding), wrapped.weight, wrapped.bias), of_teacher.logits
    )
    names = {name for name, p in wrapped.named_parameters() if not p.requires_grad}
    assert names == {"body.classifier.weight", "body.classifier.bias"}
    assert {"weight", "bias"} <= {name for name, _ in wrapped.named_buffers()}


def test_simkd_pools_a_higher_map_of_the_student() -> None:
    student, teacher = student_of("resnet8"), teacher_of()
    assert student.shapes.map == (32, 4, 4)
    lower = SimKD(student, 48, 5, (2, 2)).eval()
    assert lower.shapes.map == (48, 2, 2)
    with torch.no_grad():
        map = present(student.eval().outputs(images(), frozenset({"map"})).map)
        expected = lower.projector(F.avg_pool2d(map, 2))
        got = present(lower.outputs(images(), frozenset({"map"})).map)
    torch.testing.assert_close(got, expected)
    higher = SimKD(student, 48, 5, (8, 8))
    assert higher.shapes.map == (48, 4, 4)
    assert teacher.shapes.map is not None


def test_norm_hands_out_the_expanded_map() -> None:
    student = student_of("resnet8")
    wrapped = wrap("norm", student, teacher_of())
    assert isinstance(wrapped, Norm)
    assert wrapped.shapes.map == (3 * 48, 4, 4)
    assert wrapped.shapes.embedding == student.shapes.embedding
    wrapped.eval()
    with torch.no_grad():
        features = present(student.outputs(images(), frozenset({"map"})).map)
        outputs = wrapped.outputs(images(), frozenset({"map", "embedding"}))
        expanded = wrapped.expand(features)
        assert torch.equal(present(outputs.map), expanded)
        residual = features + wrapped.contract(expanded)
    torch.testing.assert_close(present(outputs.embedding), residual.mean((2, 3)))


@pytest.mark.parametrize("name", STUDENTS)
def test_norm_folds_into_the_body(name: str) -> None:
    student = student_of(name)
    wrapped = used(wrap("norm", student, teacher_of()))
    before = copy.deepcopy(wrapped.state_dict())
    folded = unwrap(wrapped).eval()
    with torch.no_grad():
        logits, through_body = wrapped(images()), student.eval()(images())
        torch.testing.assert_close(folded(images()), logits, rtol=1e-4, atol=1e-4)
    assert (logits - through_body).abs().max() > 0.1
    assert type(folded) is type(student)
    assert folded.state_dict().keys() == student.state_dict().keys()
    # The student goes on training as it was.
    for key, value in wrapped.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_student_is_built_again(kind: str) -> None:
    wrapped = used(wrap(kind, student_of("resnet8"), teacher_of()))
    saved = wrapping(wrapped)
    assert all(isinstance(value, int | str) for value in saved.values())
    again = rewrap(student_of("resnet8", seed=9), saved)
    again.load_state_dict(wrapped.state_dict())
    assert torch.equal(again.eval()(images()), wrapped(images()))
    assert again.shapes == wrapped.shapes


def test_networks_without_an_end_stay_as_they_are() -> None:
    student = student_of("resnet8")
    assert wrapping(student) == {}
    assert rewrap(student, {}) is student
    assert unwrap(student) is student
    simkd = wrap("simkd", student, teacher_of())
    assert unwrap(simkd) is simkd
    assert wrapping(unwrap(wrap("norm", student_of("resnet8"), teacher_of()))) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_depends_on_the_seed_alone(kind: str) -> None:
    state = torch.get_rng_state()
    states = [
        wrap(kind, student_of("resnet8"), teacher_of(), seed).state_dict() for seed in (3, 3, 4)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_refusals() -> None:
    student, teacher = student_of("resnet8"), teacher_of()
    vit = create_model("timm/test_vit", 5, image_size=SIZE, args={"img_size": SIZE}, seed=0)
    with pytest.raises(ValueError, match="a teacher with a map"):
        wrap("simkd", student, vit)
    with pytest.raises(ValueError, match="a body with a map"):
        wrap("simkd", vit, teacher)
    with pytest.raises(ValueError, match="a map and a linear classifier"):
        wrap("norm", vit, teacher)
    with pytest.raises(UserError, match='must be simkd or norm, but got "other"'):
        rewrap(student, {"kind": "other"})
    with pytest.raises(UserError, match="must name its 'copies'"):
        rewrap(student, {"kind": "norm", "channels": 4})
