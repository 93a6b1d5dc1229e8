"""What holds for several of the methods on logits beside kd, dkd and ldrld."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import (
    METHODS,
    ctkd,
    ctkd_dkd,
    dist,
    lskd_dkd,
    lskd_kd,
    nkd,
    normkd,
    normkd_dkd,
    ntce,
    rld,
    sphericalkd,
    sphericalkd_script,
    ttm,
    wttm,
)

from .draws import draw, pair

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

THETA = torch.ones(1, dtype=torch.float64)
RANGE = {"t_start": 1.0, "t_end": 20.0, "lambda_": -1.0}
DKD = {"alpha": 1.0, "beta": 4.0}

SCALE_FREE: dict[str, Loss] = {
    "lskd": lambda s, t, y: lskd_kd(s, t, temperature=2.0),
    "lskd of dkd": lambda s, t, y: lskd_dkd(s, t, y, **DKD, temperature=2.0),
    "normkd": lambda s, t, y: normkd(s, t, temperature=2.0),
    "normkd of dkd": lambda s, t, y: normkd_dkd(s, t, y, **DKD, temperature=2.0),
    "sphericalkd": lambda s, t, y: sphericalkd(s, t, temperature=4.0, m=2.0),
    "sphericalkd's script, once": lambda s, t, y: sphericalkd_script(
        s, t, temperature=4.0, official_quirks=False
    ),
    "rld, standardised": lambda s, t, y: rld(
        s, t, y, **DKD, temperature=2.0, alpha_temperature=2.0, standardise=True
    ),
}
ZERO_AT_EQUALITY: dict[str, Loss] = {
    **{name: loss for name, loss in SCALE_FREE.items() if not name.startswith("rld")},
    "sphericalkd's script": lambda s, t, y: sphericalkd_script(s, t, temperature=4.0),
    "dist": lambda s, t, y: dist(s, t, temperature=2.0, beta=1.0, gamma=2.0),
    "ctkd": lambda s, t, y: ctkd(s, t, THETA, **RANGE),
    "ctkd of dkd": lambda s, t, y: ctkd_dkd(s, t, y, THETA, **DKD, **RANGE),
}
LOSSES: dict[str, Loss] = {
    **SCALE_FREE,
    **ZERO_AT_EQUALITY,
    "nkd": lambda s, t, y: nkd(s, t, y, temperature=2.0, gamma=1.5),
    "ttm": lambda s, t, y: ttm(s, t, gamma=0.3),
    "wttm": lambda s, t, y: wttm(s, t, gamma=0.3),
    "rld": lambda s, t, y: rld(s, t, y, **DKD, temperature=4.0, alpha_temperature=1.0),
    "ntce": lambda s, t, y: ntce(s, t, y, temperature=4.0, factors=(2.0, 0.5, 0.0, -1.0)),
}
METHOD_NAMES = (
    "nkd",
    "ttm",
    "wttm",
    "lskd",
    "normkd",
    "sphericalkd",
    "dist",
    "rld",
    "ntce",
    "ctkd",
)
seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=10, deadline=None)
@given(seed=seeds, shift_s=st.floats(-1e3, 1e3), shift_t=st.floats(-1e3, 1e3))
def test_a_constant_per_sample_changes_nothing(
    name: str, seed: int, shift_s: float, shift_t: float
) -> None:
    z_s, z_t, y = draw(seed)
    per_sample = torch.linspace(-1, 1, len(y), dtype=torch.float64).unsqueeze(1)
    shifted = LOSSES[name](z_s + shift_s * per_sample, z_t + shift_t * per_sample, y)
    torch.testing.assert_close(shifted, LOSSES[name](z_s, z_t, y), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SCALE_FREE)
@settings(max_examples=10, deadline=None)
@given(seed=seeds, scale=st.floats(0.1, 50))
def test_the_students_scale_changes_nothing(name: str, seed: int, scale: float) -> None:
    z_s, z_t, y = draw(seed)
    scales = scale * torch.linspace(0.5, 2, len(y), dtype=torch.float64).unsqueeze(1)
    value = SCALE_FREE[name](z_s, z_t, y)
    # The offsets of the standard deviations, 1e-7, are no scale.
    torch.testing.assert_close(SCALE_FREE[name](scales * z_s, z_t, y), value, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ZERO_AT_EQUALITY)
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_zero_value_and_gradient_at_student_equal_teacher(name: str, seed: int) -> None:
    z, _, y = draw(seed)
    z_s = z.clone().requires_grad_()
    value = ZERO_AT_EQUALITY[name](z_s, z, y)
    (gradient,) = torch.autograd.grad(value, z_s)
    # Not exactly 0 for DIST: 1e-8 is added to its denominators, which confident columns notice.
    atol = 1e-2 if name == "dist" else 1e-10
    assert abs(value.item()) < atol
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=atol)


@pytest.mark.parametrize("name", LOSSES)
def test_different_shapes_are_refused(name: str) -> None:
    z_s, z_t, y = draw(0)
    with pytest.raises(ValueError, match=r"must both be \[B, C\], but got \[6, 5\] and \[6, 7\]"):
        LOSSES[name](z_s[:, :5], z_t, y % 5)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_different_numbers_of_classes_are_refused(name: str) -> None:
    method = METHODS[name]
    hyperparameters = method.complete({})
    assert "same number of classes, but got 10 and 5" in method.refuse(pair(10, 5), hyperparameters)
    assert method.refuse(pair(10, 10), hyperparameters) == ""


@pytest.mark.parametrize("name", ["nkd", "lskd", "normkd", "sphericalkd", "rld", "ntce"])
def test_one_class_is_refused(name: str) -> None:
    method = METHODS[name]
    reason = method.refuse(pair(1, 1), method.complete({}))
    assert "at least 2" in reason
    assert reason.endswith("but got 1")


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_and_one_hot_teachers_stay_finite(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    extreme = 1e4 * torch.randint(-1, 2, (6, 7), generator=generator).float()
    y = torch.arange(6) % 7
    one_hot = 1e4 * torch.eye(7)[(y + 1) % 7]
    flat = torch.full((6, 7), 1e4)
    for student, teacher in ((extreme, one_hot), (one_hot, extreme), (flat, one_hot)):
        z_s = student.clone().requires_grad_()
        value = LOSSES[name](z_s, teacher, y)
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, z_s)[0]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_widened_before_anything_is_computed(name: str) -> None:
    z_s, z_t, y = draw(7)
    half_s, half_t = z_s.bfloat16(), z_t.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = LOSSES[name](half_s, half_t, y)
    expected = LOSSES[name](half_s.double(), half_t.double(), y)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
