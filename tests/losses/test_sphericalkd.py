import torch
import torch.nn.functional as F

from kdscale.losses import kd, spherical_logits, sphericalkd, sphericalkd_script

from .draws import draw
from .pairs import trial_of


def test_logits_of_one_length() -> None:
    z = spherical_logits(draw(0)[0], m=2.5)
    torch.testing.assert_close(
        z.std(1, correction=0), torch.full((6,), 2.5, dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert z.mean(1).abs().max() < 1e-12


def test_readme_is_kd_of_both_rescaled() -> None:
    z_s, z_t, _ = draw(1)
    s, t = (2 * F.layer_norm(z, (7,), None, None, 1e-7) for z in (z_s, z_t))
    expected = kd(s, t, temperature=4.0)
    torch.testing.assert_close(sphericalkd(z_s, z_t, temperature=4.0, m=2.0), expected)


def test_script_rescales_the_student_twice_and_without_quirks_once() -> None:
    z_s, z_t, _ = draw(2)
    ratio = z_t.std(1, keepdim=True) / z_s.std(1, keepdim=True)
    for quirks, rescaled in ((True, ratio * ratio * z_s), (False, ratio * z_s)):
        value = sphericalkd_script(z_s, z_t, temperature=3.0, official_quirks=quirks)
        torch.testing.assert_close(value, kd(rescaled, z_t, temperature=3.0))


def test_script_depends_on_the_students_scale() -> None:
    z_s, z_t, _ = draw(3)
    values = [sphericalkd_script(scale * z_s, z_t, temperature=4.0) for scale in (1.0, 3.0)]
    assert abs(values[0] - values[1]) > 1e-2


def test_equal_logits_of_a_sample_stay_finite() -> None:
    z_s = torch.full((2, 5), 1e4, requires_grad=True)
    for value in (
        sphericalkd(z_s, torch.randn(2, 5), temperature=4.0, m=2.0),
        sphericalkd_script(z_s, torch.randn(2, 5), temperature=4.0),
    ):
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, z_s)[0]).all()


def test_term_holds_the_cross_entropy_of_the_rescaled_logits() -> None:
    for variant in ("readme", "script"):
        trial = trial_of("sphericalkd", variant=variant)
        batch = trial.batch
        z_s, z_t = batch.student.logits, batch.teacher.logits
        ratio = z_t.std(1, keepdim=True) / z_s.std(1, keepdim=True)
        rescaled = {"readme": spherical_logits(z_s, m=2.0), "script": ratio * z_s}[variant]
        without = trial_of("sphericalkd", variant=variant, ce=0.0)
        expected = 0.9 * without.term(batch) + 0.1 * F.cross_entropy(rescaled, batch.target)
        torch.testing.assert_close(trial.method.weight * trial.term(batch), expected)
