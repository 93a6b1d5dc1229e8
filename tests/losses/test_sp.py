import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, sp

from .pairs import shapes_for, trial_of


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def rotation(seed: int, dims: int) -> Tensor:
    return torch.linalg.qr(draw(seed, dims, dims)).Q


def test_is_the_sum_over_pairs_of_images() -> None:
    f_s, f_t = draw(0, 4, 3, 2, 2), draw(1, 4, 5)
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(4):
        rows = []
        for f in (f_s, f_t):
            row = torch.stack([(f[i] * f[j]).sum() for j in range(4)])
            rows.append(row / row.norm())
        expected += ((rows[0] - rows[1]) ** 2).sum() / 16
    torch.testing.assert_close(sp(f_s, f_t), expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_scale_and_rotation_of_the_features_do_not_matter(seed: int, scale: float) -> None:
    f_s, f_t = draw(seed, 6, 8), draw(seed + 1, 6, 5)
    expected = sp(f_s, f_t)
    moved = sp(scale * f_s @ rotation(seed + 2, 8), f_t @ rotation(seed + 3, 5) / scale)
    torch.testing.assert_close(moved, expected, rtol=1e-8, atol=1e-12)


def test_zero_for_the_teachers_own_features_however_turned() -> None:
    f = draw(0, 5, 4)
    assert sp(f, f) == 0
    assert sp(3 * f @ rotation(1, 4), f) < 1e-20
    assert sp(draw(2, 5, 4), f) > 1e-3


def test_several_stages_are_summed() -> None:
    together, last = trial_of("sp", stages="2 3"), trial_of("sp")
    assert METHODS["sp"].weight == 3000
    batch = together.batch
    expected = sp(batch.student.stages[2], batch.teacher.stages[2]) + sp(
        batch.student.stages[3], batch.teacher.stages[3]
    )
    torch.testing.assert_close(together.term(batch), expected)
    torch.testing.assert_close(
        last.term(last.batch), sp(last.batch.student.stages[3], last.batch.teacher.stages[3])
    )


def test_refusals() -> None:
    method = METHODS["sp"]
    assert "at least 2, but got 1" in method.refuse(shapes_for(method, 1), method.complete({}))
    assert "at most 3" in method.refuse(shapes_for(method), method.complete({"stages": "4"}))
    with pytest.raises(ValueError, match="same images, but got 4 and 5"):
        sp(draw(0, 4, 3), draw(0, 5, 3))
