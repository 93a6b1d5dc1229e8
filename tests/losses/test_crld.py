import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, PairShapes, crld, kd
from kdscale.outputs import OutputShapes

from .pairs import trial_of


def draw(seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(4, 6, 9, generator=generator, dtype=torch.float64)).unbind(0)


def value(
    views: tuple[Tensor, ...],
    *,
    w_wv: float = 2.0,
    w_cv: float = 0.5,
    tau_w: float = 0.0,
    tau_s: float = 0.0,
) -> Tensor:
    return crld(*views, w_wv=w_wv, w_cv=w_cv, temperature=4.0, tau_w=tau_w, tau_s=tau_s)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_without_thresholds_it_is_four_kds(seed: int) -> None:
    z_s, z_t, z_s2, z_t2 = draw(seed)
    within = kd(z_s, z_t, temperature=4.0) + kd(z_s2, z_t2, temperature=4.0)
    cross = kd(z_s2, z_t, temperature=4.0) + kd(z_s, z_t2, temperature=4.0)
    torch.testing.assert_close(value(draw(seed)), 2.0 * within + 0.5 * cross)


def test_weak_confidence_masks_within_and_strong_confidence_masks_across() -> None:
    views = draw(1)
    sure_w = views[1].softmax(1).amax(1)
    threshold = sure_w.sort().values[3].item()
    within = value(views, w_cv=0.0, tau_w=threshold)
    kept = sure_w >= threshold
    few = tuple(z[kept] for z in views)
    # Samples that are left out still count in the mean.
    torch.testing.assert_close(within, value(few, w_cv=0.0) * kept.double().mean())
    torch.testing.assert_close(value(views, w_cv=0.0, tau_s=1.0), value(views, w_cv=0.0))

    sure_s = views[3].softmax(1).amax(1)
    threshold = sure_s.sort().values[2].item()
    kept = sure_s >= threshold
    few = tuple(z[kept] for z in views)
    across = value(views, w_wv=0.0, tau_s=threshold)
    torch.testing.assert_close(across, value(few, w_wv=0.0) * kept.double().mean())


def test_no_sure_sample_gives_zero_value_and_gradient() -> None:
    z_s, *others = draw(2)
    z_s.requires_grad_()
    loss = value((z_s, *others), tau_w=1.1, tau_s=1.1)
    (gradient,) = torch.autograd.grad(loss, z_s)
    assert loss == 0
    assert not gradient.any()


def test_zero_where_all_agree() -> None:
    z = draw(3)[0]
    assert value((z, z, z, z)) == 0
    assert value((z, z, 2 * z, 2 * z), w_cv=0.0) == 0
    assert value((z, z, 2 * z, 2 * z), w_wv=0.0) > 0


def test_term_holds_the_strong_cross_entropy() -> None:
    trial = trial_of("crld", tau_w=0.1, strong_ce=0.4)
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
    torch.testing.assert_close(trial.term(batch), value(views, tau_w=0.1, tau_s=0.2) + 0.4 * ce)


def test_refusals() -> None:
    method = METHODS["crld"]
    equal = PairShapes(OutputShapes(10, 8), OutputShapes(10, 8), 4)
    assert method.needs(equal, method.complete({})).second_view
    unequal = PairShapes(OutputShapes(10, 8), OutputShapes(5, 8), 4)
    assert "but got 10 and 5" in method.refuse(unequal, method.complete({}))
    z = draw(4)
    with pytest.raises(ValueError, match="in both views"):
        value((z[0], z[1], z[2][:2], z[3][:2]))
