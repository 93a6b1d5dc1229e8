import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import (
    METHODS,
    dkd,
    kd,
    lskd_dkd,
    lskd_kd,
    lskd_mlld,
    mlld_batch,
    mlld_class,
    standardise_logits,
)
from kdscale.outputs import present

from .draws import draw, pair
from .pairs import trial_of

TEMPERATURES = (2.0, 3.0, 5.0, 2.0, 6.0)


def standardised(z: Tensor) -> Tensor:
    centred = z - z.mean(1, keepdim=True)
    return centred / (1e-7 + (centred.square().sum(1, keepdim=True) / (z.shape[1] - 1)).sqrt())


def test_standardised_logits_have_mean_zero_and_unbiased_deviation_one() -> None:
    n = standardise_logits(draw(0)[0])
    torch.testing.assert_close(n.mean(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(n.std(1), torch.ones(6, dtype=torch.float64), rtol=1e-6, atol=0)


def test_is_kd_and_dkd_of_standardised_logits() -> None:
    z_s, z_t, y = draw(1)
    s, t = standardised(z_s), standardised(z_t)
    torch.testing.assert_close(lskd_kd(z_s, z_t, temperature=2.0), kd(s, t, temperature=2.0))
    weights = {"alpha": 1.0, "beta": 8.0, "temperature": 3.0}
    torch.testing.assert_close(lskd_dkd(z_s, z_t, y, **weights), dkd(s, t, y, **weights))


def test_equal_logits_of_a_sample_stay_finite() -> None:
    z_s = torch.full((2, 5), 3.0, requires_grad=True)
    value = lskd_kd(z_s, torch.randn(2, 5), temperature=2.0)
    (gradient,) = torch.autograd.grad(value, z_s)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_mlld_standardises_the_instances_alone_as_the_official_code_does() -> None:
    z_s, z_t, _ = draw(2)
    z_s2, z_t2, _ = draw(3)
    views = (z_s, z_t, z_s2, z_t2)
    s, t, s2, t2 = (standardised(z) for z in views)
    confidence = z_t.softmax(1).amax(1)  # raw
    kept = (confidence <= confidence.quantile(0.5)).double().mean()
    instance = torch.zeros((), dtype=torch.float64)
    for number, temperature in enumerate(TEMPERATURES):
        weak = kd(s, t, temperature=temperature)
        strong = kd(s2, t2, temperature=temperature) if number < 3 else weak
        instance = instance + kept * weak + strong
    relations = mlld_batch(*views, temperatures=TEMPERATURES) + mlld_class(
        *views, temperatures=TEMPERATURES
    )
    torch.testing.assert_close(lskd_mlld(*views, temperatures=TEMPERATURES), instance + relations)


def test_mlld_without_quirks_differs_and_is_zero_at_student_equal_teacher() -> None:
    z_s, z_t, _ = draw(4)
    z_s2, z_t2, _ = draw(5)
    options = {"temperatures": TEMPERATURES}
    quirky = lskd_mlld(z_s, z_t, z_s2, z_t2, **options)
    clean = lskd_mlld(z_s, z_t, z_s2, z_t2, **options, official_quirks=False)
    assert abs(quirky - clean) > 1e-3
    for quirks in (True, False):
        value = lskd_mlld(z_t, z_t, z_t2, z_t2, **options, official_quirks=quirks)
        assert abs(value.item()) < 1e-12


def test_base_mlld_asks_for_a_second_view_and_holds_its_cross_entropy() -> None:
    trial = trial_of("lskd", base="mlld")
    batch, z_s2 = trial.batch, present(trial.batch.student_2).logits
    distillation = lskd_mlld(
        batch.student.logits,
        batch.teacher.logits,
        z_s2,
        present(batch.teacher_2).logits,
        temperatures=TEMPERATURES,
    )
    strong_ce = F.cross_entropy(z_s2, batch.target)
    weight = trial.method.weight
    expected = weight * distillation + 0.1 * strong_ce
    torch.testing.assert_close(weight * trial.term(batch), expected)


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_other_bases_need_one_view(base: str) -> None:
    method = METHODS["lskd"]
    assert not method.needs(pair(), method.complete({"base": base})).second_view
    trial = trial_of("lskd", base=base, temperature=3.0)
    z_s, z_t = trial.batch.student.logits, trial.batch.teacher.logits
    expected = {
        "kd": lskd_kd(z_s, z_t, temperature=3.0),
        "dkd": lskd_dkd(z_s, z_t, trial.batch.target, alpha=1.0, beta=8.0, temperature=3.0),
    }
    torch.testing.assert_close(trial.term(trial.batch), expected[base])
