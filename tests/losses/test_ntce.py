import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.losses import METHODS, kd, ntce
from kdscale.outputs import present

from .draws import draw, pair
from .pairs import trial_of

FACTORS = (2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0)
seeds = st.integers(0, 2**31)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, temperature=st.floats(0.5, 8))
def test_factor_zero_is_kd(seed: int, temperature: float) -> None:
    z_s, z_t, y = draw(seed)
    value = ntce(z_s, z_t, y, temperature=temperature, factors=(0.0,))
    torch.testing.assert_close(value, kd(z_s, z_t, temperature=temperature))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, factor=st.floats(-2, 3), classes=st.integers(2, 9))
def test_one_factor_is_kd_of_the_changed_logits(seed: int, factor: float, classes: int) -> None:
    z_s, z_t, y = draw(seed, classes=classes)
    top = z_t.topk(2, dim=1)
    shift = factor * (top.values[:, :1] - top.values[:, 1:])
    s = z_s - shift * F.one_hot(y, classes)
    t = z_t - shift * F.one_hot(top.indices[:, 0], classes)
    value = ntce(z_s, z_t, y, temperature=3.0, factors=(factor,))
    torch.testing.assert_close(value, kd(s, t, temperature=3.0), rtol=1e-9, atol=1e-12)


def test_is_the_mean_over_factors() -> None:
    z_s, z_t, y = draw(1)
    alone = [ntce(z_s, z_t, y, temperature=4.0, factors=(factor,)) for factor in FACTORS]
    value = ntce(z_s, z_t, y, temperature=4.0, factors=FACTORS)
    torch.testing.assert_close(value, torch.stack(alone).mean())


def test_zero_at_student_equal_teacher_where_the_teacher_is_right() -> None:
    _, z_t, _ = draw(2)
    z_s = z_t.clone().requires_grad_()
    value = ntce(z_s, z_t, z_t.argmax(1), temperature=4.0, factors=FACTORS)
    (gradient,) = torch.autograd.grad(value, z_s)
    assert abs(value.item()) < 1e-12
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    assert ntce(z_t, z_t, z_t.argmin(1), temperature=4.0, factors=FACTORS) > 0.1


def test_a_tie_at_the_top_has_no_margin() -> None:
    z_s, z_t, y = draw(3)
    z_t[:, 0] = z_t[:, 1] = z_t.amax(1) + 1
    value = ntce(z_s, z_t, y, temperature=4.0, factors=FACTORS)
    torch.testing.assert_close(value, kd(z_s, z_t, temperature=4.0))


def test_second_view_is_the_mean_of_two_and_holds_its_cross_entropy() -> None:
    trial = trial_of("ntce", second_view=True)
    batch = trial.batch
    views = [
        (batch.student.logits, batch.teacher.logits),
        (present(batch.student_2).logits, present(batch.teacher_2).logits),
    ]
    parts = [ntce(s, t, batch.target, temperature=4.0, factors=FACTORS) for s, t in views]
    strong_ce = F.cross_entropy(views[1][0], batch.target)
    expected = 8 * (parts[0] + parts[1]) / 2 + 0.5 * strong_ce
    torch.testing.assert_close(trial.method.weight * trial.term(batch), expected)


@pytest.mark.parametrize("second_view", [False, True])
def test_asks_for_the_second_view_where_it_uses_it(second_view: bool) -> None:
    method = METHODS["ntce"]
    needs = method.needs(pair(), method.complete({"second_view": second_view}))
    assert needs.second_view is second_view


def test_factors_are_numbers() -> None:
    factors = METHODS["ntce"].hyperparameters[1]
    assert factors.broken_rule("2 -1 0.5") == ""
    assert factors.broken_rule("2, 1").startswith("must be numbers")
