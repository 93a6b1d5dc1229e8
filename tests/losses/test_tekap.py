from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kdscale.losses import METHODS, Batch, PairShapes, kd, tekap_logit
from kdscale.outputs import Outputs, OutputShapes

from .pairs import trial_of


def draw(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z_s = 3 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    z_t = 3 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    return z_s, z_t, torch.randn(3, 6, 9, generator=generator, dtype=torch.float64)


def test_without_noise_its_mass_is_that_of_the_copies() -> None:
    z_s, z_t, noise = draw(0)
    value = tekap_logit(z_s, z_t, noise, temperature=4.0, teacher_weight=1.0, noise_weight=0.0)
    torch.testing.assert_close(value, (1 + 3 * 0.8) * kd(z_s, z_t, temperature=4.0))


def test_each_copy_is_a_teacher_of_its_own() -> None:
    z_s, z_t, noise = draw(1)
    copies = [kd(z_s, 0.9 * z_t + 0.1 * eps, temperature=2.0) for eps in noise]
    expected = kd(z_s, z_t, temperature=2.0) + 0.8 * torch.stack(copies).sum()
    torch.testing.assert_close(tekap_logit(z_s, z_t, noise, temperature=2.0), expected)


def test_student_equal_to_teacher_is_not_zero() -> None:
    _, z_t, noise = draw(2)
    assert tekap_logit(z_t, z_t, noise, temperature=4.0) > 0


def test_an_image_has_the_same_noise_however_the_batch_is_shared() -> None:
    trial = trial_of("tekap")
    batch = trial.batch
    whole = trial.term(batch)

    def share(first: int) -> Batch:
        def cut(outputs: Outputs) -> Outputs:
            return Outputs(outputs.logits[first : first + 4])

        return replace(
            batch,
            student=cut(batch.student),
            teacher=cut(batch.teacher),
            target=batch.target[first : first + 4],
            first=first,
            whole=8,
        )

    halves = [trial.term(share(first)) for first in (0, 4)]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, whole)
    other = trial.term(replace(batch, key=batch.key + 1))
    assert not torch.equal(other, whole)


def test_refusals() -> None:
    method = METHODS["tekap"]
    unequal = PairShapes(OutputShapes(10, 8), OutputShapes(5, 8), 4)
    assert "but got 10 and 5" in method.refuse(unequal, method.complete({}))
    z_s, z_t, noise = draw(3)
    with pytest.raises(ValueError, match=r"noise must be \[M, B, C\]"):
        tekap_logit(z_s, z_t, noise[:, :2], temperature=4.0)
