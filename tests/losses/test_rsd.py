from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kdscale.losses import AAD, METHODS, Batch, PairShapes, rsd
from kdscale.outputs import Outputs, OutputShapes


def straightforward(e_s: Tensor, e_t: Tensor, kappa: float) -> Tensor:
    """The whole D x D matrix and a boolean index, as the official code has it."""
    dims = e_s.shape[1]
    a = (e_s - e_s.mean(0)) / (e_s.std(0, unbiased=False) + 1e-5)
    b = (e_t - e_t.mean(0)) / (e_t.std(0, unbiased=False) + 1e-5)
    r = b.T @ a / len(a)
    diagonal = torch.eye(dims, dtype=torch.bool)
    return ((r[diagonal] - 1) ** 2).sum() + kappa * (r[~diagonal] ** 2).sum()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch_size=st.integers(2, 12),
    dims=st.integers(1, 24),
    kappa=st.floats(0, 1),
)
def test_equals_the_full_matrix_on_both_sides_of_d_equal_b(
    seed: int, batch_size: int, dims: int, kappa: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    e_s = torch.randn(batch_size, dims, generator=generator, dtype=torch.float64)
    e_s.requires_grad_()
    e_t = torch.randn(batch_size, dims, generator=generator, dtype=torch.float64)
    got, expected = rsd(e_s, e_t, kappa=kappa), straightforward(e_s, e_t, kappa)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(got, e_s), torch.autograd.grad(expected, e_s), rtol=1e-7, atol=1e-9
    )


class LargestProduct(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default:
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize("dims", [5, 8, 50])
@pytest.mark.parametrize("teacher_learns", [False, True])
def test_no_matrix_is_larger_than_the_features(dims: int, teacher_learns: bool) -> None:
    e_s, e_t = torch.randn(8, dims), torch.randn(8, dims)
    e_s.requires_grad_()
    e_t.requires_grad_(teacher_learns)
    with LargestProduct() as products:
        rsd(e_s, e_t, kappa=0.1).backward()
    assert products.numel == 8 * dims


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch_size=st.integers(2, 12),
    dims=st.integers(1, 24),
    kappa=st.floats(0, 1),
    constant=st.integers(0, 3),
)
def test_gradient_beside_the_value_is_that_of_the_composition(
    seed: int, batch_size: int, dims: int, kappa: float, constant: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    e_s = torch.randn(batch_size, dims, generator=generator, dtype=torch.float64)
    e_s[:, :constant] = 2.0
    e_s.requires_grad_()
    e_t = torch.randn(batch_size, dims, generator=generator, dtype=torch.float64)
    fused = rsd(e_s, e_t, kappa=kappa)
    composed = rsd(e_s, e_t.clone().requires_grad_(), kappa=kappa)
    torch.testing.assert_close(fused, composed)
    torch.testing.assert_close(rsd(e_s.detach(), e_t, kappa=kappa), composed.detach())
    torch.testing.assert_close(
        torch.autograd.grad(3 * fused, e_s), torch.autograd.grad(3 * composed, e_s)
    )


@pytest.mark.parametrize("dims", [3, 9])
def test_gradients_of_both_networks_and_of_the_gradient(dims: int) -> None:
    generator = torch.Generator().manual_seed(0)
    e_s, e_t = (torch.randn(5, dims, generator=generator, dtype=torch.float64) for _ in "st")
    e_s.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda e: rsd(e, e_t, kappa=0.1), e_s)
    e_t.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: rsd(s, t, kappa=0.1), (e_s, e_t))


@pytest.mark.parametrize("dims", [4, 9])
def test_gradcheck_through_either_form_and_the_decoupler(dims: int) -> None:
    torch.manual_seed(0)
    aad = AAD(5, dims).double()
    nn.init.normal_(aad.expand.weight)
    nn.init.normal_(aad.project.weight)
    e_t = torch.randn(6, dims, dtype=torch.float64)
    e_s = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: rsd(aad(e), e_t, kappa=0.1), e_s)


def test_zero_for_the_teachers_own_uncorrelated_features() -> None:
    # Columns of a Hadamard matrix: centred, unit variance, orthogonal.
    plus_minus = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    hadamard = torch.kron(plus_minus, torch.kron(plus_minus, plus_minus))[:, 1:]
    assert rsd(hadamard, hadamard, kappa=1.0) < 1e-8
    assert rsd(hadamard.flip(1), hadamard, kappa=1.0) > 1


def test_only_the_off_diagonal_is_left_at_student_equal_teacher() -> None:
    e = torch.randn(16, 5, dtype=torch.float64)
    assert rsd(e, e, kappa=0.0) < 1e-8
    assert rsd(e, e, kappa=1.0) > 1e-3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_shift_and_positive_scale_of_columns_do_not_matter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    e_s, e_t = draw(16, 5), draw(16, 5)
    moved = rsd(e_s * draw(5).exp() + draw(5), e_t * draw(5).exp() + draw(5), kappa=0.1)
    # Not exact, because 1e-5 is added to the standard deviation.
    torch.testing.assert_close(moved, rsd(e_s, e_t, kappa=0.1), rtol=1e-2, atol=1e-2)


def test_a_constant_column_gives_finite_gradients() -> None:
    e_s, e_t = torch.randn(8, 4), torch.randn(8, 4)
    e_s[:, 0] = 0.0
    e_s.requires_grad_()
    rsd(e_s, e_t, kappa=0.1).backward()
    assert e_s.grad is not None
    assert torch.isfinite(e_s.grad).all()


def test_decoupler_is_as_in_the_paper() -> None:
    torch.manual_seed(0)
    aad = AAD(64, 32, gamma=3)
    assert {name: tuple(p.shape) for name, p in aad.named_parameters()} == {
        "expand.weight": (192, 64),
        "norm.weight": (192,),
        "norm.bias": (192,),
        "project.weight": (32, 192),
    }
    for weight in (aad.expand.weight, aad.project.weight):
        assert abs(weight.std().item() - 0.02) < 0.001
        assert abs(weight.mean().item()) < 0.001
    assert aad(torch.randn(4, 64)).shape == (4, 32)


def test_decoupler_computes_in_single_precision_under_autocast() -> None:
    torch.manual_seed(0)
    aad, e = AAD(6, 8), torch.randn(4, 6)
    expected = aad(e)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(aad(e), expected)


def shapes(batch_size: int = 8) -> PairShapes:
    return PairShapes(OutputShapes(10, 6), OutputShapes(10, 9), batch_size)


def test_variants_read_what_they_say() -> None:
    method = METHODS["rsd"]
    embedding = method.complete({})
    logits = method.complete({"variant": "logits", "lambda": 0.5})
    wanted = method.needs(shapes(), embedding)
    assert wanted.student == wanted.teacher == {"embedding"}
    assert method.needs(shapes(), logits).student == {"logits"}

    student = Outputs(torch.randn(8, 10), torch.randn(8, 6))
    teacher = Outputs(torch.randn(8, 10), torch.randn(8, 9))
    batch = Batch(student, teacher, torch.zeros(8, dtype=torch.int64))
    value = method.build(shapes(), logits)(batch)
    torch.testing.assert_close(value, 0.5 * rsd(student.logits, teacher.logits, kappa=0.01))

    term = method.build(shapes(), embedding)
    assert isinstance(term, nn.Module)
    aad = term.get_submodule("aad")
    assert student.embedding is not None
    assert teacher.embedding is not None
    expected = 0.1 * rsd(aad(student.embedding), teacher.embedding, kappa=0.01)
    torch.testing.assert_close(term(batch), expected)
    with pytest.raises(ValueError, match="must name each output"):
        term(Batch(Outputs(student.logits), teacher, batch.target))


def test_refusals() -> None:
    method = METHODS["rsd"]
    embedding, logits = method.complete({}), method.complete({"variant": "logits"})
    assert "at least 2 images" in method.refuse(shapes(batch_size=1), embedding)
    assert "at least 2 images" in method.refuse(shapes(batch_size=1), logits)
    assert method.refuse(shapes(), embedding) == ""
    unequal = PairShapes(OutputShapes(10, 6), OutputShapes(100, 9), batch_size=8)
    assert method.refuse(unequal, embedding) == ""
    assert "but got 10 and 100" in method.refuse(unequal, logits)
