"""What holds for every method on logits."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import dkd, kd, ldrld, ldrld_local, ldrld_rntk, rsd

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

SOFTMAX_LOSSES: dict[str, Loss] = {
    "kd": lambda s, t, y: kd(s, t, temperature=2.0),
    "dkd": lambda s, t, y: dkd(s, t, y, alpha=1.0, beta=4.0, temperature=2.0),
    "ldrld": lambda s, t, y: ldrld(s, t, alpha=3.0, beta=2.0, depth=4, temperature=2.0),
    "ldrld_local": lambda s, t, y: ldrld_local(s, t, depth=4, temperature=2.0),
    "ldrld_rntk": lambda s, t, y: ldrld_rntk(s, t, depth=4, temperature=2.0),
}
LOSSES: dict[str, Loss] = {**SOFTMAX_LOSSES, "rsd": lambda s, t, y: rsd(s, t, kappa=0.1)}

each_softmax_loss = pytest.mark.parametrize(
    "loss", SOFTMAX_LOSSES.values(), ids=SOFTMAX_LOSSES.keys()
)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
seeds = st.integers(0, 2**31)


def draw(seed: int, batch_size: int = 5, classes: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, classes)
    z_s = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    z_t = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return z_s, z_t, torch.randint(classes, (batch_size,), generator=generator)


@each_softmax_loss
@settings(max_examples=20, deadline=None)
@given(seed=seeds, shift_s=st.floats(-1e4, 1e4), shift_t=st.floats(-1e4, 1e4))
def test_a_constant_per_sample_changes_nothing(
    loss: Loss, seed: int, shift_s: float, shift_t: float
) -> None:
    z_s, z_t, y = draw(seed)
    per_sample = torch.linspace(-1, 1, len(y), dtype=torch.float64).unsqueeze(1)
    shifted = loss(z_s + shift_s * per_sample, z_t + shift_t * per_sample, y)
    torch.testing.assert_close(shifted, loss(z_s, z_t, y), rtol=1e-8, atol=1e-8)


@each_softmax_loss
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_zero_value_and_gradient_at_student_equal_teacher(loss: Loss, seed: int) -> None:
    z, other, y = draw(seed)
    z_s = z.clone().requires_grad_()
    value = loss(z_s, z, y)
    value.backward()
    assert abs(value.item()) < 1e-12
    assert z_s.grad is not None
    assert z_s.grad.abs().max() < 1e-12
    assert loss(other, z, y) > 0


@each_loss
@settings(max_examples=20, deadline=None)
@given(seed=seeds, order=st.permutations(range(5)))
def test_order_of_the_batch_does_not_matter(loss: Loss, seed: int, order: list[int]) -> None:
    z_s, z_t, y = draw(seed)
    torch.testing.assert_close(loss(z_s[order], z_t[order], y[order]), loss(z_s, z_t, y))


@each_loss
@settings(max_examples=20, deadline=None)
@given(seed=seeds, order=st.permutations(range(9)))
def test_names_of_the_classes_do_not_matter(loss: Loss, seed: int, order: list[int]) -> None:
    z_s, z_t, y = draw(seed)
    position = torch.tensor([order.index(int(label)) for label in y])
    torch.testing.assert_close(loss(z_s[:, order], z_t[:, order], position), loss(z_s, z_t, y))


@each_loss
def test_gradcheck(loss: Loss) -> None:
    z_s, z_t, y = draw(7)
    assert torch.autograd.gradcheck(lambda z: loss(z, z_t, y), z_s.requires_grad_())


EXTREMES = {
    "huge student": lambda s, t, y: (1e4 * s.sign(), t),
    "huge teacher": lambda s, t, y: (s, 1e4 * t.sign()),
    "both huge": lambda s, t, y: (1e4 * s.sign(), 1e4 * t.sign()),
    "opposite": lambda s, t, y: (1e4 * s.sign(), -1e4 * s.sign()),
    "one-hot teacher": lambda s, t, y: (s, 1e4 * torch.nn.functional.one_hot(y, 9).float()),
    "one-hot both": lambda s, t, y: (1e4 * (s == s.amax(1, True)), 1e4 * (t == t.amax(1, True))),
    "all equal": lambda s, t, y: (torch.zeros_like(s), torch.zeros_like(t)),
}


@each_loss
@pytest.mark.parametrize("extreme", EXTREMES.values(), ids=EXTREMES.keys())
def test_value_and_gradient_stay_finite(
    loss: Loss, extreme: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
) -> None:
    z_s, z_t, y = draw(3)
    z_s, z_t = (z.float() for z in extreme(z_s, z_t, y))
    z_s.requires_grad_()
    value = loss(z_s, z_t, y)
    value.backward()
    assert torch.isfinite(value)
    assert z_s.grad is not None
    assert torch.isfinite(z_s.grad).all()


@each_loss
def test_single_precision_agrees_with_double(loss: Loss) -> None:
    z_s, z_t, y = draw(11)
    single = loss(z_s.float(), z_t.float(), y)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), loss(z_s, z_t, y), rtol=1e-4, atol=0)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_and_autocast_compute_in_single_precision(
    loss: Loss, dtype: torch.dtype
) -> None:
    z_s, z_t, y = draw(13)
    z_s, z_t = z_s.to(dtype), z_t.to(dtype)
    expected = loss(z_s.float(), z_t.float(), y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(z_s, z_t, y)
        from_single = loss(z_s.float(), z_t.float(), y)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert torch.equal(from_single, expected)


@each_loss
def test_shapes_must_agree(loss: Loss) -> None:
    z_s, z_t, y = draw(17)
    with pytest.raises(ValueError, match=r"got \[5, 9\] and \[5, 8\]"):
        loss(z_s, z_t[:, :8], y)
