from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdscale.losses import ABF, METHODS, PairShapes, hcl
from kdscale.outputs import OutputShapes
from kdscale.records import Value

from .pairs import CNN, WIDER, trial_of


def straightforward(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Both maps pooled to every size."""
    loss, weight, total = F.mse_loss(f_s, f_t), 1.0, 1.0
    for size in (4, 2, 1):
        if size < f_s.shape[2]:
            weight /= 2
            pooled_s, pooled_t = (F.adaptive_avg_pool2d(f, (size, size)) for f in (f_s, f_t))
            loss, total = loss + weight * F.mse_loss(pooled_s, pooled_t), total + weight
    return loss / total


def refusal(shapes: PairShapes, **given: Value) -> str:
    return METHODS["reviewkd"].refuse(shapes, METHODS["reviewkd"].complete(given))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 12), width=st.integers(1, 12))
def test_hcl_equals_pooling_both_maps(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    f_s = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    f_t = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    f_s.requires_grad_()
    got, expected = hcl(f_s, f_t), straightforward(f_s, f_t)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(got, f_s), torch.autograd.grad(expected, f_s), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_hcl_is_zero_at_equal_maps_and_the_square_of_an_even_shift(size: int) -> None:
    f_t = torch.randn(2, 3, size, size, dtype=torch.float64)
    f_s = f_t.clone().requires_grad_()
    value = hcl(f_s, f_t)
    assert value == 0
    assert torch.autograd.grad(value, f_s)[0].abs().max() == 0
    torch.testing.assert_close(hcl(f_t + 3, f_t).item(), 9.0)


def test_hcl_needs_equal_shapes() -> None:
    with pytest.raises(ValueError, match="must both be"):
        hcl(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 2))


def test_fusion_has_the_teachers_shape_and_hands_the_residual_on() -> None:
    torch.manual_seed(0)
    deep, shallow = ABF(6, 5, 9, fuse=False), ABF(3, 5, 7, fuse=True)
    out, residual = deep(torch.randn(2, 6, 2, 2), None, (4, 4))
    assert out.shape == (2, 9, 4, 4)
    assert residual.shape == (2, 5, 4, 4)
    features = torch.randn(2, 3, 8, 8)
    out, residual = shallow(features, residual, (8, 8))
    assert out.shape == (2, 7, 8, 8)
    assert residual.shape == (2, 5, 8, 8)
    assert out.equal(shallow.expand_norm(shallow.expand(residual)))
    with pytest.raises(ValueError, match="among its needs"):
        shallow(features, None, (8, 8))


def test_gates_weigh_the_stage_and_the_deeper_residual() -> None:
    torch.manual_seed(0)
    fusion = ABF(3, 5, 7, fuse=True)
    assert fusion.attention is not None
    nn.init.zeros_(fusion.attention.weight)
    features, deeper = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    own = fusion.reduce_norm(fusion.reduce(features))
    upsampled = deeper.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for bias, expected in (((50.0, -50.0), own), ((-50.0, 50.0), upsampled)):
        fusion.attention.bias = nn.Parameter(torch.tensor(bias))
        torch.testing.assert_close(fusion(features, deeper, (4, 4))[1], expected)


def test_term_fuses_from_the_embedding_to_the_first_stage() -> None:
    trial = trial_of("reviewkd")
    assert isinstance(trial.term, nn.Module)
    fusions = trial.term.get_submodule("fusions")
    assert isinstance(fusions, nn.ModuleList)
    student, teacher = trial.batch.student, trial.batch.teacher
    assert student.embedding is not None
    assert teacher.embedding is not None
    assert [fusion.get_submodule("expand").out_channels for fusion in fusions] == [6, 7, 8, 8]
    # The middle size is the student's embedding size; only the deepest fuses nothing.
    assert [fusion.get_submodule("reduce").out_channels for fusion in fusions] == [6] * 4
    fused = [isinstance(fusion, ABF) and fusion.attention is not None for fusion in fusions]
    assert fused == [True, True, True, False]
    maps = [
        (student.embedding[:, :, None, None], teacher.embedding[:, :, None, None]),
        *((student.stages[k], teacher.preactivations[k]) for k in (3, 2, 1)),
    ]
    residual, expected = None, torch.zeros((), dtype=torch.float64)
    for fusion, (f_s, f_t) in zip(reversed(fusions), maps, strict=True):
        out, residual = fusion(f_s, residual, tuple(f_t.shape[2:]))
        expected = expected + straightforward(out, f_t)
    torch.testing.assert_close(trial.term(trial.batch), expected)


@pytest.mark.parametrize("student", ["stage", "preactivation"])
@pytest.mark.parametrize("teacher", ["stage", "preactivation"])
def test_features_before_or_after_the_relu(student: str, teacher: str) -> None:
    method, shapes = METHODS["reviewkd"], PairShapes(CNN, WIDER, 8)
    given: dict[str, Value] = {"student_features": student, "teacher_features": teacher}
    needs = method.needs(shapes, method.complete({**given, "stages": "2 3"}))
    assert needs.student == {"embedding", f"{student} 2", f"{student} 3"}
    assert needs.teacher == {"embedding", f"{teacher} 2", f"{teacher} 3"}
    trial = trial_of("reviewkd", **given)  # type: ignore[arg-type]
    assert trial.term(trial.batch) > 0


def test_it_trains() -> None:
    trial = trial_of("reviewkd")
    assert isinstance(trial.term, nn.Module)
    optimiser = torch.optim.Adam(trial.term.parameters(), 0.02)
    first = trial.term(trial.batch).item()
    for _ in range(20):
        optimiser.zero_grad()
        trial.term(trial.batch).backward()
        optimiser.step()
    assert trial.term(trial.batch).item() < 0.8 * first


def test_refusals() -> None:
    shapes = PairShapes(CNN, WIDER, 8)
    assert refusal(shapes) == ""
    assert "at least 2 images, but got 1" in refusal(replace(shapes, batch_size=1))
    assert "the teacher must put out stage" in refusal(replace(shapes, teacher=OutputShapes(10, 8)))
    assert "stages must be at most 3" in refusal(shapes, stages="4")
    rectified = replace(shapes, teacher=replace(WIDER, preactivations=False))
    assert "teacher_features: stage takes those after it" in refusal(rectified)
    assert refusal(rectified, teacher_features="stage") == ""
    rectified = replace(shapes, student=replace(CNN, preactivations=False))
    assert refusal(rectified) == ""
    assert "student_features: stage" in refusal(rectified, student_features="preactivation")
