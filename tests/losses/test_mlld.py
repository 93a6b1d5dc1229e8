from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import (
    METHODS,
    PairShapes,
    kd,
    mlld,
    mlld_batch,
    mlld_batch_rows,
    mlld_class,
    mlld_class_rows,
    mlld_instance,
)
from kdscale.outputs import OutputShapes

from .pairs import trial_of

TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)
Part = Callable[..., Tensor]


def draw(seed: int, batch_size: int = 6, classes: int = 9) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shape = (4, batch_size, classes)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).unbind(0)


def mask_of(confidence: Tensor) -> Tensor:
    return (confidence <= confidence.quantile(0.5)).double()


@pytest.mark.parametrize("official_quirks", [True, False])
def test_zero_at_student_equal_to_teacher(official_quirks: bool) -> None:
    z, _, z2, _ = draw(0)
    value = mlld(z, z, z2, z2, temperatures=TEMPERATURES, official_quirks=official_quirks)
    assert value.abs() < 1e-14


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), quirks=st.booleans())
def test_constants_per_sample_change_nothing(seed: int, quirks: bool) -> None:
    views = draw(seed)
    shifts = torch.linspace(-5, 5, 6, dtype=torch.float64).unsqueeze(1)
    value = mlld(*views, temperatures=TEMPERATURES, official_quirks=quirks)
    shifted = [z + k * shifts for k, z in enumerate(views)]
    torch.testing.assert_close(
        mlld(*shifted, temperatures=TEMPERATURES, official_quirks=quirks), value
    )


@pytest.mark.parametrize("official_quirks", [True, False])
def test_total_is_the_sum_of_its_parts(official_quirks: bool) -> None:
    parts = [
        part(*draw(1), temperatures=TEMPERATURES, official_quirks=official_quirks)
        for part in (mlld_instance, mlld_batch, mlld_class)
    ]
    total = mlld(*draw(1), temperatures=TEMPERATURES, official_quirks=official_quirks)
    torch.testing.assert_close(total, parts[0] + parts[1] + parts[2])


def test_quirks_take_the_weak_view_after_the_third_temperature() -> None:
    z_s, z_t, z_s2, z_t2 = draw(2)
    kept = mask_of(z_t.softmax(1).amax(1)).mean()
    weak = [kd(z_s, z_t, temperature=t) for t in TEMPERATURES]
    strong = [kd(z_s2, z_t2, temperature=t) for t in TEMPERATURES]
    quirky = mlld_instance(z_s, z_t, z_s2, z_t2, temperatures=TEMPERATURES)
    expected = kept * sum(weak) + sum(strong[:3]) + sum(weak[3:])
    torch.testing.assert_close(quirky, torch.as_tensor(expected))


def test_clean_masks_leave_samples_out_and_strong_is_strong() -> None:
    z_s, z_t, z_s2, z_t2 = draw(3)
    mask = mask_of(z_t.softmax(1).amax(1))
    expected = z_s.new_zeros(())
    for t in TEMPERATURES:
        rows = F.kl_div((z_s / t).log_softmax(1), (z_t / t).softmax(1), reduction="none").sum(1)
        expected = expected + t**2 * (rows * mask).mean() + kd(z_s2, z_t2, temperature=t)
    clean = mlld_instance(z_s, z_t, z_s2, z_t2, temperatures=TEMPERATURES, official_quirks=False)
    torch.testing.assert_close(clean, expected)


@pytest.mark.parametrize("part", [mlld_instance, mlld_batch, mlld_class])
def test_quirky_and_clean_differ(part: Part) -> None:
    quirky = part(*draw(4), temperatures=TEMPERATURES)
    assert not torch.isclose(
        quirky, part(*draw(4), temperatures=TEMPERATURES, official_quirks=False)
    )


@pytest.mark.parametrize("part", [mlld_batch, mlld_class])
def test_only_clean_relations_read_the_strong_view(part: Part) -> None:
    z_s, z_t, z_s2, z_t2 = draw(5)
    for quirks in (True, False):
        values = [
            part(z_s, z_t, strong, z_t2, temperatures=TEMPERATURES, official_quirks=quirks)
            for strong in (z_s2, 2 * z_s2)
        ]
        assert torch.equal(*values) is quirks


@pytest.mark.parametrize(("batch_size", "classes"), [(3, 10), (6, 7), (10, 3)])
def test_rows_are_those_of_the_gram_matrices(batch_size: int, classes: int) -> None:
    z_s, z_t, _, _ = draw(6, batch_size, classes)
    p_s, p_t = (z_s / 2).softmax(1), (z_t / 2).softmax(1)
    of_samples = (p_t @ p_t.T - p_s @ p_s.T).square().sum(1) / batch_size
    of_classes = (p_t.T @ p_t - p_s.T @ p_s).square().sum(1) / classes
    torch.testing.assert_close(mlld_batch_rows(z_s, z_t, temperatures=[2.0])[0], of_samples)
    torch.testing.assert_close(mlld_class_rows(z_s, z_t, temperatures=[2.0])[0], of_classes)


def test_term_holds_the_weighted_levels_and_the_strong_cross_entropy() -> None:
    trial = trial_of("mlld", w_kd=0.7, strong_ce=0.3)
    batch = trial.batch
    assert batch.student_2 is not None
    assert batch.teacher_2 is not None
    views = (
        batch.student.logits,
        batch.teacher.logits,
        batch.student_2.logits,
        batch.teacher_2.logits,
    )
    ce = F.cross_entropy(batch.student_2.logits, batch.target)
    expected = 0.7 * mlld(*views, temperatures=TEMPERATURES) + 0.3 * ce
    torch.testing.assert_close(trial.term(batch), expected)


def test_refusals() -> None:
    method = METHODS["mlld"]
    assert method.needs(
        PairShapes(OutputShapes(10, 8), OutputShapes(10, 8), 4), method.complete({})
    ).second_view
    equal = PairShapes(OutputShapes(10, 8), OutputShapes(10, 8), 4)
    cold = method.complete({"temperatures": "4 0"})
    assert 'every temperature must be > 0, but got "4 0"' in method.refuse(equal, cold)
    unequal = PairShapes(OutputShapes(10, 8), OutputShapes(5, 8), 4)
    assert "but got 10 and 5" in method.refuse(unequal, method.complete({}))
    z_s, z_t, z_s2, z_t2 = draw(7)
    with pytest.raises(ValueError, match="in both views"):
        mlld(z_s, z_t, z_s2[:3], z_t2[:3], temperatures=TEMPERATURES)
