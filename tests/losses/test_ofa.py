from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from kdscale.losses import METHODS, Batch, PairShapes, ofa
from kdscale.losses._ofa_projectors import (
    ConvolutionProjector,
    StageProjectors,
    TokenProjector,
    merge_count,
)
from kdscale.outputs import OutputShapes
from kdscale.records import Value

from .pairs import CNN, random_outputs, trial_of

seeds = st.integers(0, 2**31)
VIT = OutputShapes(10, 8, stages=((8, 8, 8),) * 4)
NO_STAGES = OutputShapes(10, 12)


def draw(seed: int, batch_size: int = 5, classes: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, classes)
    z_s = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    z_t = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return z_s, z_t, torch.randint(classes, (batch_size,), generator=generator)


def projectors_of(shapes: PairShapes, **given: Value) -> StageProjectors:
    hyperparameters = METHODS["ofa"].complete(given)
    assert METHODS["ofa"].refuse(shapes, hyperparameters) == ""
    torch.manual_seed(0)
    return StageProjectors(shapes, hyperparameters)


def blocks_of(projector: nn.Module) -> nn.Sequential:
    blocks = projector.get_submodule("blocks")
    assert isinstance(blocks, nn.Sequential)
    return blocks


def refusal(shapes: PairShapes, **given: Value) -> str:
    return METHODS["ofa"].refuse(shapes, METHODS["ofa"].complete(given))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, temperature=st.floats(0.5, 8))
def test_at_exponent_one_it_is_cross_entropy_with_the_teacher(
    seed: int, temperature: float
) -> None:
    z_s, z_t, y = draw(seed)
    expected = F.cross_entropy(z_s / temperature, F.softmax(z_t / temperature, dim=1))
    got = ofa(z_s, z_t, y, eps=1.0, temperature=temperature)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_its_minimum_at_exponent_one_is_the_teachers_entropy(seed: int) -> None:
    other, z_t, y = draw(seed)
    z_s = z_t.clone().requires_grad_()
    value = ofa(z_s, z_t, y, eps=1.0)
    entropy = -(F.softmax(z_t, dim=1) * F.log_softmax(z_t, dim=1)).sum(1).mean()
    torch.testing.assert_close(value, entropy)
    assert torch.autograd.grad(value, z_s)[0].abs().max() < 1e-12
    assert ofa(other, z_t, y, eps=1.0) > entropy


@settings(max_examples=20, deadline=None)
@given(seed=seeds, eps=st.floats(0.5, 3), temperature=st.floats(0.5, 4))
def test_equals_a_loop_over_classes(seed: int, eps: float, temperature: float) -> None:
    z_s, z_t, y = draw(seed)
    p = F.softmax(z_t / temperature, dim=1)
    log_q = F.log_softmax(z_s / temperature, dim=1)
    total = 0.0
    for b in range(len(y)):
        for c in range(z_s.shape[1]):
            is_label = c == int(y[b])
            weight = (p[b, c].item() + is_label) ** eps - is_label
            total -= weight * log_q[b, c].item() / len(y)
    assert ofa(z_s, z_t, y, eps=eps, temperature=temperature).item() == pytest.approx(total)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, shift=st.floats(-1e4, 1e4))
def test_a_constant_per_sample_changes_nothing(seed: int, shift: float) -> None:
    z_s, z_t, y = draw(seed)
    moved = ofa(z_s + shift, z_t - shift, y, eps=1.5)
    torch.testing.assert_close(moved, ofa(z_s, z_t, y, eps=1.5), rtol=1e-8, atol=1e-8)


def test_a_larger_exponent_pulls_to_the_label() -> None:
    _, z_t, y = draw(0)
    z_s = z_t.clone().requires_grad_()
    gradient = torch.autograd.grad(ofa(z_s, z_t, y, eps=2.0), z_s)[0]
    assert (gradient.gather(1, y.unsqueeze(1)) < 0).all()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="must both be"):
        ofa(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), eps=1.0)


def test_term_is_the_weighted_sum_of_final_and_stages() -> None:
    trial = trial_of("ofa", w_kd=0.5, w_ofa=2.0, eps_last=1.2, eps_stage=1.5, temperature=2.0)
    assert isinstance(trial.term, nn.Module)
    batch = trial.batch
    stages = trial.term.get_submodule("projectors")(batch.student)
    assert len(stages) == 3

    def loss(z_s: Tensor, eps: float) -> Tensor:
        return ofa(z_s, batch.teacher.logits, batch.target, eps=eps, temperature=2.0)

    expected = 0.5 * loss(batch.student.logits, 1.2) + 2.0 * sum(loss(z, 1.5) for z in stages)
    torch.testing.assert_close(trial.term(batch), expected)


def test_cnn_students_get_one_block_for_each_later_stage() -> None:
    student = OutputShapes(10, 16, stages=((2, 16, 16), (4, 8, 8), (8, 4, 4), (16, 2, 2)))
    projectors = projectors_of(PairShapes(student, NO_STAGES, 8))
    kinds = [ConvolutionProjector] * 4
    assert [type(projector) for projector in projectors.projectors] == kinds
    assert [len(blocks_of(projector)) for projector in projectors.projectors] == [3, 2, 1, 1]
    convolutions = [
        [module.out_channels for module in p.modules() if isinstance(module, nn.Conv2d)]
        for p in projectors.projectors
    ]
    # Depthwise, pointwise, depthwise, pointwise; channels double, the last go to max(16, 12).
    assert convolutions[0] == [2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 16]
    assert convolutions[2] == [8, 8, 8, 16]
    assert convolutions[3] == [16]
    first = projectors.projectors[0]
    assert blocks_of(first)(torch.randn(2, 2, 16, 16)).shape == (2, 16, 2, 2)
    batch = random_outputs(student, frozenset(f"stage {k}" for k in range(4)), 2, torch.Generator())
    logits = projectors.double()(batch)
    assert [tuple(z.shape) for z in logits] == [(2, 10)] * 4


def test_stages_count_from_the_last_one_and_leave_the_stem_out() -> None:
    method, shapes = METHODS["ofa"], PairShapes(CNN, NO_STAGES, 8)
    for stages, numbers in (("all", {1, 2, 3}), ("2 3", {2, 3}), ("last", {3})):
        needs = method.needs(shapes, method.complete({"stages": stages}))
        assert needs.student == {"logits", *(f"stage {number}" for number in numbers)}
        assert needs.teacher == {"logits"}
    (convolution,) = blocks_of(projectors_of(shapes, stages="last").projectors[0])
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.kernel_size == (1, 1)


@pytest.mark.parametrize("width", [8, 12])
def test_token_students_get_blocks_and_no_batch_norm(width: int) -> None:
    student = OutputShapes(10, width, stages=((width, 16, 16),) * 4)
    projectors = projectors_of(PairShapes(student, NO_STAGES, 1))
    for projector, later in zip(projectors.projectors, (3, 2, 1, 0), strict=True):
        assert isinstance(projector, TokenProjector)
        assert len(projector.blocks) == max(later, 1)
        assert len(projector.merges) == 1  # 16 -> 8 tokens a side
        assert not any(isinstance(part, nn.BatchNorm2d) for part in projector.modules())
        assert projector(torch.randn(1, width, 16, 16)).shape == (1, 10)


def test_swin_students_can_have_token_projectors() -> None:
    student = OutputShapes(10, 16, stages=((4, 28, 28), (8, 14, 14), (16, 7, 7)))
    shapes = PairShapes(student, NO_STAGES, 2)
    assert all(isinstance(p, ConvolutionProjector) for p in projectors_of(shapes).projectors)
    tokens = projectors_of(shapes, projector="tokens").projectors
    merges = [len(p.merges) for p in tokens if isinstance(p, TokenProjector)]
    assert merges == [2, 1, 0]
    for projector, shape in zip(tokens, student.stages, strict=True):
        assert projector(torch.randn(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("grid", range(1, 70))
def test_merges_as_often_as_the_official_code(grid: int) -> None:
    assert merge_count(grid) == max(int(math.log2(grid / 7)), 0)


def test_blocks_are_those_of_timm() -> None:
    torch.manual_seed(0)
    projector = TokenProjector(8, 7, 0, 8, 10)
    # timm 0.6.5, which the authors took, has PyTorch's LayerNorm (offset 1e-5).
    ours, theirs = projector.blocks[0], Block(8, num_heads=4, norm_layer=nn.LayerNorm)
    renamed = {
        "attention_norm": theirs.norm1,
        "queries_keys_values": theirs.attn.qkv,
        "project": theirs.attn.proj,
        "mlp_norm": theirs.norm2,
        "expand": theirs.mlp.fc1,
        "contract": theirs.mlp.fc2,
    }
    for name, module in renamed.items():
        ours.get_submodule(name).load_state_dict(module.state_dict())
    tokens = torch.randn(3, 49, 8)
    torch.testing.assert_close(ours(tokens), theirs(tokens))


def test_a_merged_token_sees_its_four_tokens_alone() -> None:
    projector = TokenProjector(3, 14, 0, 8, 10)
    features = torch.randn(1, 3, 14, 14)
    changed = features.clone()
    changed[:, :, 4:6, 8:10] += torch.randn(1, 3, 2, 2)
    moved = (projector.merges(changed) - projector.merges(features)).abs().sum(1)[0]
    assert moved.nonzero().tolist() == [[2, 4]]


@pytest.mark.parametrize("student", [CNN, VIT], ids=["cnn", "vit"])
def test_projectors_train_with_the_student(student: OutputShapes) -> None:
    method = METHODS["ofa"]
    shapes = PairShapes(student, NO_STAGES, 8)
    hyperparameters = method.complete({"w_kd": 0.0})
    torch.manual_seed(0)
    term = method.build(shapes, hyperparameters)
    assert isinstance(term, nn.Module)
    needs = method.needs(shapes, hyperparameters)
    generator = torch.Generator().manual_seed(1)
    batch = Batch(
        random_outputs(student, needs.student, 8, generator, torch.float32),
        random_outputs(NO_STAGES, needs.teacher, 8, generator, torch.float32),
        torch.arange(8),
    )
    optimiser = torch.optim.Adam(term.parameters(), 0.02)
    first = float(term(batch).detach())
    for _ in range(20):
        optimiser.zero_grad()
        term(batch).backward()
        optimiser.step()
    assert float(term(batch).detach()) < 0.9 * first
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())


def test_refusals() -> None:
    shapes = PairShapes(CNN, NO_STAGES, 8)
    assert refusal(shapes) == ""
    assert "at least 2 images, but got 1" in refusal(replace(shapes, batch_size=1))
    assert refusal(PairShapes(VIT, NO_STAGES, 1)) == ""
    assert "but got 10 and 7" in refusal(PairShapes(CNN, OutputShapes(7, 12), 8))
    assert "the student must put out stage" in refusal(PairShapes(NO_STAGES, NO_STAGES, 8))
    assert "stages must be at most 3" in refusal(shapes, stages="2 4")
    assert "multiple of 4, but got 6" in refusal(
        PairShapes(OutputShapes(10, 6, stages=((6, 8, 8),) * 3), NO_STAGES, 8)
    )
    assert "must be a multiple of 2" in refusal(
        PairShapes(OutputShapes(10, 8, stages=((8, 15, 15),) * 3), NO_STAGES, 8)
    )
    assert "square stages, but got 8 x 6" in refusal(
        PairShapes(OutputShapes(10, 8, stages=((8, 8, 6),) * 3), NO_STAGES, 8)
    )
    assert "embedding size 8, but got 4" in refusal(
        PairShapes(OutputShapes(10, 8, stages=((4, 8, 8), (8, 4, 4))), NO_STAGES, 8),
        projector="tokens",
    )
