import pytest
import torch
from torch import nn

from kdscale.losses import METHODS, LinearPair, cc

from .pairs import shapes_for, trial_of


def test_is_the_mean_over_neighbours() -> None:
    e_s, e_t = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    d = (e_s - e_t).abs()
    expected = (d[0] @ d[1] + d[1] @ d[2] + d[2] @ d[3]) / 3
    torch.testing.assert_close(cc(e_s, e_t), expected)


def test_depends_on_the_order_of_the_batch() -> None:
    torch.manual_seed(0)
    e_s, e_t = torch.randn(5, 3), torch.randn(5, 3)
    order = [0, 2, 4, 1, 3]
    assert not torch.isclose(cc(e_s, e_t), cc(e_s[order], e_t[order]))
    assert torch.isclose(cc(e_s, e_t), cc(e_s.flip(0), e_t.flip(0)))


def test_zero_where_no_two_neighbours_are_wrong() -> None:
    e = torch.randn(6, 3)
    assert cc(e, e) == 0
    wrong = e.clone()
    wrong[::2] += 1.0
    assert cc(wrong, e) == 0
    assert cc(e + 1.0, e) == pytest.approx(3.0)


def test_both_embeddings_are_mapped_and_both_maps_learn() -> None:
    trial = trial_of("cc", dims=7)
    assert isinstance(trial.term, nn.Module)
    maps = trial.term.get_submodule("maps")
    assert isinstance(maps, LinearPair)
    assert maps.student.weight.shape == (7, 6)
    assert maps.teacher.weight.shape == (7, 8)
    trial.term(trial.batch).backward()
    for parameter in maps.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_refusals() -> None:
    method = METHODS["cc"]
    assert "at least 2 images, but got 1" in method.refuse(shapes_for(method, 1), {})
    assert method.refuse(shapes_for(method, 2), {}) == ""
    with pytest.raises(ValueError, match="at least 2 images"):
        cc(torch.randn(1, 3), torch.randn(1, 3))
    with pytest.raises(ValueError, match=r"both be \[B, D\]"):
        cc(torch.randn(4, 3), torch.randn(4, 5))
