import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, pkt

from .pairs import shapes_for


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_is_the_mean_over_pairs_of_a_divergence_of_neighbourhoods() -> None:
    e_s, e_t = draw(0, 4, 3), draw(1, 4, 5)

    def probability(e: Tensor, i: int, j: int) -> float:
        cosines = torch.nn.functional.cosine_similarity(e[i : i + 1], e)
        return float((1 + cosines[j]) / (1 + cosines).sum())

    total = 0.0
    for i in range(4):
        for j in range(4):
            p, q = probability(e_t, i, j), probability(e_s, i, j)
            total += p * torch.tensor((p + 1e-7) / (q + 1e-7)).log().item()
    assert abs(pkt(e_s, e_t).item() - total / 16) < 1e-7


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_scale_per_image_and_rotation_do_not_matter(seed: int) -> None:
    e_s, e_t = draw(seed, 6, 4), draw(seed + 1, 6, 5)
    turned = draw(seed + 2, 6, 1).exp() * e_s @ torch.linalg.qr(draw(seed + 3, 4, 4)).Q
    # Not exact, because 1e-7 is added to the norms.
    torch.testing.assert_close(pkt(turned, e_t), pkt(e_s, e_t), rtol=1e-4, atol=1e-7)
    assert pkt(e_s, e_s) == 0
    assert pkt(turned, e_s).abs() < 1e-7


def test_opposite_and_zero_embeddings_are_finite() -> None:
    e = draw(0, 4, 3).float()
    e[1], e[2] = -e[0], 0.0
    student = e.clone().requires_grad_()
    loss = pkt(student, draw(1, 4, 3).float())
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_refusals() -> None:
    method = METHODS["pkt"]
    assert "at least 2, but got 1" in method.refuse(shapes_for(method, 1), {})
    assert method.refuse(shapes_for(method, 2), {}) == ""
    assert method.weight == 30000
