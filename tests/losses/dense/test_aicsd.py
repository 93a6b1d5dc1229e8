import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS
from kdscale.losses.dense import aicsd

from .maps import draw, pair


def official(z_s: Tensor, z_t: Tensor) -> Tensor:
    """The double loop of the code, for any number of classes."""
    kl = torch.nn.KLDivLoss(reduction="batchmean")
    matrices = []
    for z in (z_s, z_t):
        p = F.softmax(z, dim=2)
        matrix = torch.empty(z.shape[1], z.shape[1], dtype=z.dtype)
        for i in range(z.shape[1]):
            for j in range(i, z.shape[1]):
                matrix[j, i] = matrix[i, j] = kl(p[:, i], p[:, j])
        matrices.append(F.normalize(matrix, dim=1))
    return (matrices[0] - matrices[1]).pow(2).mean() / len(z_s)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), official_quirks=st.booleans())
def test_a_constant_on_a_class_changes_nothing(seed: int, official_quirks: bool) -> None:
    z_s, z_t = draw(2, 4, 3, 5, seed=seed), draw(2, 4, 3, 5, seed=seed + 1)
    value = aicsd(z_s, z_t, official_quirks=official_quirks)
    shifted = aicsd(z_s + 3 * draw(2, 4, 1, 1, seed=seed + 2), z_t, official_quirks=official_quirks)
    torch.testing.assert_close(shifted, value)
    assert value > 0
    assert aicsd(z_t, z_t, official_quirks=official_quirks) == 0


def test_clean_form_is_the_matrix_of_kl_divergences() -> None:
    z_s, z_t = draw(3, 4, 2, 5), draw(3, 4, 2, 5, seed=1)
    matrices = []
    for z in (z_s, z_t):
        p = torch.softmax(z.flatten(2) / 2.0, dim=2)
        matrix = [
            [(p[:, i] * (p[:, i] / p[:, j]).log()).sum() / 3 for j in range(4)] for i in range(4)
        ]
        matrices.append(torch.tensor(matrix, dtype=z.dtype))
    rows = [m / m.norm(dim=1, keepdim=True) for m in matrices]
    expected = (rows[0] - rows[1]).square().mean() / 3
    torch.testing.assert_close(aicsd(z_s, z_t, temperature=2.0), expected)


def test_official_quirks_is_the_codes_double_loop() -> None:
    z_s, z_t = draw(3, 4, 2, 5), draw(3, 4, 2, 5, seed=1)
    got = aicsd(z_s, z_t, official_quirks=True)
    torch.testing.assert_close(got, official(z_s, z_t))
    assert got.item() != pytest.approx(aicsd(z_s, z_t).item(), rel=0.01)


def test_one_class_is_refused() -> None:
    method = METHODS["aicsd"]
    assert "at least 2 classes, but got 1" in method.refuse(
        pair(classes=(1, 1)), method.complete({})
    )
