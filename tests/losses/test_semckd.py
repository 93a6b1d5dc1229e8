from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kdscale.losses import METHODS, CrossStageAttention

from .pairs import CNN, WIDER, shapes_for, trial_of


def features(seed: int, *channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = (8, 4, 2)
    shapes = [(8, c, side, side) for c, side in zip(channels, sides, strict=False)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def module_of(soft: float = 1.0) -> CrossStageAttention:
    torch.manual_seed(0)
    return CrossStageAttention([3, 4, 5], [4, 6], 8, soft).double()


def test_is_the_mean_over_images_and_student_stages() -> None:
    module, f_s, f_t = module_of(), features(0, 3, 4, 5), features(1, 4, 6)
    weights = module.attention(*f_s, *f_t)
    assert weights.shape == (8, 3, 2)
    torch.testing.assert_close(weights.sum(2), torch.ones(8, 3, dtype=torch.float64))
    expected = torch.zeros((), dtype=torch.float64)
    pool = nn.functional.adaptive_avg_pool2d
    for i in range(3):
        for j in range(2):
            side = min(f_s[i].shape[2], f_t[j].shape[2])
            projected = module.projections[2 * i + j](pool(f_s[i], (side, side)))
            error = (projected - pool(f_t[j], (side, side))).square().mean((1, 2, 3))
            expected = expected + (weights[:, i, j] * error).sum() / 24
    torch.testing.assert_close(module(*f_s, *f_t), expected)


def test_a_large_scale_makes_attention_even_and_a_small_one_sharp() -> None:
    f = *features(0, 3, 4, 5), *features(1, 4, 6)
    even = module_of(soft=1e6).attention(*f)
    torch.testing.assert_close(even, torch.full_like(even, 0.5), rtol=1e-4, atol=0)
    sharp = module_of(soft=1e-6).attention(*f)
    torch.testing.assert_close(sharp.amax(2), torch.ones_like(sharp[:, :, 0]))


def test_shapes_are_those_of_the_authors() -> None:
    module = CrossStageAttention([3], [4, 5], 64)
    query, project = module.queries[0], module.projections[1]
    assert isinstance(query, nn.Sequential)
    assert isinstance(project, nn.Sequential)
    assert [tuple(p.shape) for p in query.parameters()] == [(32, 64), (32,), (16, 32), (16,)]
    weights = [tuple(p.shape) for p in project.parameters() if p.ndim == 4]
    assert weights == [(10, 3, 1, 1), (10, 10, 3, 3), (5, 10, 1, 1)]
    assert len(module.keys) == 2
    assert len(module.projections) == 2


def test_the_gradient_runs_through_the_similarities_too() -> None:
    module, f_s, f_t = module_of(), features(0, 3, 4, 5), features(1, 4, 6)
    f_s[0].requires_grad_()
    weights = module.attention(*f_s, *f_t)
    (gradient,) = torch.autograd.grad(weights[0, 0, 0], f_s[0])
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_all_stages_but_the_stem_take_part() -> None:
    trial = trial_of("semckd")
    assert sorted(trial.batch.student.stages) == [1, 2, 3]
    assert isinstance(trial.term, nn.Module)
    attention = trial.term.get_submodule("attention")
    assert isinstance(attention, CrossStageAttention)
    assert len(attention.projections) == 9
    shallow = replace(CNN, stages=CNN.stages[:3])
    method = METHODS["semckd"]
    needs = method.needs(replace(shapes_for(method), student=shallow), {"soft": 1.0})
    assert needs.student == {"stage 1", "stage 2"}
    assert needs.teacher == {"stage 1", "stage 2", "stage 3"}


def test_refusals() -> None:
    method = METHODS["semckd"]
    hyperparameters = method.complete({})
    assert "at least 4 images, but got 3" in method.refuse(shapes_for(method, 3), hyperparameters)
    bare = replace(shapes_for(method), student=replace(CNN, stages=()))
    assert "stage features" in method.refuse(bare, hyperparameters)
    oblong = replace(WIDER, stages=((4, 8, 8), (6, 8, 8), (7, 4, 4), (8, 4, 2)))
    reason = method.refuse(replace(shapes_for(method), teacher=oblong), hyperparameters)
    assert "must be square, but got 8x8 and 4x2" in reason
    with pytest.raises(ValueError, match="built for a batch of 8, but got 4"):
        module_of()(*(f[:4] for f in (*features(0, 3, 4, 5), *features(1, 4, 6))))
