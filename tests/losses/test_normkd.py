import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.losses import kd, normkd, normkd_dkd

from .draws import draw
from .pairs import trial_of


def test_each_sample_is_kd_at_its_own_temperatures() -> None:
    z_s, z_t, _ = draw(1)
    parts = []
    for s, t in zip(z_s, z_t, strict=True):
        tau_s, tau_t = 2 * s.std(), 2 * t.std()
        kl = kd((s / tau_s).unsqueeze(0), (t / tau_t).unsqueeze(0), temperature=1.0)
        parts.append(tau_t**2 * kl)
    torch.testing.assert_close(normkd(z_s, z_t, temperature=2.0), torch.stack(parts).mean())


def test_gradient_goes_through_the_students_deviation() -> None:
    z_s, z_t, _ = draw(2)
    z_s.requires_grad_()
    (gradient,) = torch.autograd.grad(normkd(z_s, z_t, temperature=2.0), z_s)
    # The value is free of z_s's scale, so the gradient has no part along z_s.
    along = (gradient * (z_s - z_s.mean(1, keepdim=True))).sum(1)
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 4))
def test_with_dkd_it_decomposes_as_dkd_does(seed: int, temperature: float) -> None:
    z_s, z_t, y = draw(seed, batch_size=1)
    p_y = (z_t / (temperature * z_t.std())).softmax(1)[0, y].item()
    decoupled = normkd_dkd(z_s, z_t, y, alpha=1.0, beta=1 - p_y, temperature=temperature)
    torch.testing.assert_close(decoupled, normkd(z_s, z_t, temperature=temperature))


def test_equal_logits_of_a_sample_stay_finite() -> None:
    y = torch.tensor([1, 2])
    for z_s, z_t in (
        (torch.full((2, 5), 1e4), torch.randn(2, 5)),
        (torch.randn(2, 5), torch.full((2, 5), 1e4)),
    ):
        z_s.requires_grad_()
        for value in (
            normkd(z_s, z_t, temperature=2.0),
            normkd_dkd(z_s, z_t, y, alpha=1.0, beta=8.0, temperature=2.0),
        ):
            assert value >= -1e-6
            assert torch.isfinite(torch.autograd.grad(value, z_s)[0]).all()


def test_base_dkd() -> None:
    trial = trial_of("normkd", base="dkd", temperature=1.5)
    batch = trial.batch
    expected = normkd_dkd(
        batch.student.logits,
        batch.teacher.logits,
        batch.target,
        alpha=1.0,
        beta=8.0,
        temperature=1.5,
    )
    torch.testing.assert_close(trial.term(batch), expected)
    assert torch.autograd.gradcheck(
        lambda z: normkd_dkd(
            z, batch.teacher.logits, batch.target, alpha=1.0, beta=8.0, temperature=1.5
        ),
        trial.parts[0],
        fast_mode=True,
    )
