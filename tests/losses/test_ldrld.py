import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kdscale.losses import METHODS, PairShapes, kd, ldrld, ldrld_local, ldrld_rntk
from kdscale.outputs import OutputShapes


def masked_kl(z_s: Tensor, z_t: Tensor, keep: Tensor, temperature: float) -> Tensor:
    """One softmax over all classes with -1000 outside the set, as the official code has it."""
    outside = 1000.0 * (~keep)
    log_q = F.log_softmax(z_s / temperature - outside, dim=1)
    log_p = F.log_softmax(z_t / temperature - outside, dim=1)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return kl.mean() * temperature**2


def straightforward_parts(
    z_s: Tensor, z_t: Tensor, depth: int, temperature: float, include_group: bool
) -> tuple[Tensor, Tensor]:
    """LDRLD as written down: pick recursively, then one masked softmax a pair."""
    remaining, ranking = z_s.detach().clone(), []
    for _ in range(depth):
        best = remaining.argmax(dim=1, keepdim=True)
        ranking.append(best)
        remaining.scatter_(1, best, -math.inf)

    def mask(*classes: Tensor) -> Tensor:
        nothing = torch.zeros_like(z_s, dtype=torch.bool)
        return nothing.scatter(1, torch.cat(classes, dim=1), value=True)

    terms = []
    for (i, first), (j, second) in itertools.combinations(enumerate(ranking, start=1), 2):
        weight = 1 / (1.5 + abs(i - j)) * 2.0 * math.exp(-0.05 * (i + j))
        terms.append(weight * masked_kl(z_s, z_t, mask(first, second), temperature))
    if include_group:
        terms.append(masked_kl(z_s, z_t, mask(*ranking), temperature))
    rest = masked_kl(z_s, z_t, ~mask(*ranking), temperature)
    return torch.stack(terms).mean(), rest


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch_size=st.integers(1, 5),
    depth=st.integers(2, 9),
    below=st.integers(2, 6),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    include_group=st.booleans(),
)
def test_equals_one_masked_softmax_per_pair(
    seed: int, batch_size: int, depth: int, below: int, temperature: float, include_group: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, depth + below)
    z_s = (4 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    z_t = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)

    local, rest = straightforward_parts(z_s, z_t, depth, temperature, include_group)
    expected = 10.5 * local + 7.0 * rest
    got = ldrld(
        z_s,
        z_t,
        alpha=10.5,
        beta=7.0,
        depth=depth,
        temperature=temperature,
        include_group=include_group,
    )
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(got, z_s), torch.autograd.grad(expected, z_s), rtol=1e-9, atol=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch_size=st.integers(1, 5),
    depth=st.integers(2, 9),
    below=st.integers(2, 6),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    include_group=st.booleans(),
    ties=st.booleans(),
)
def test_gradient_beside_the_value_is_that_of_the_composition(
    seed: int,
    batch_size: int,
    depth: int,
    below: int,
    temperature: float,
    include_group: bool,
    ties: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, depth + below)
    z_s = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    z_s = (z_s.round() if ties else z_s).requires_grad_()
    z_t = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)

    def loss(z_s: Tensor, z_t: Tensor) -> Tensor:
        return ldrld(
            z_s,
            z_t,
            alpha=10.5,
            beta=7.0,
            depth=depth,
            temperature=temperature,
            include_group=include_group,
        )

    fused, composed = loss(z_s, z_t), loss(z_s, z_t.clone().requires_grad_())
    torch.testing.assert_close(fused, composed)
    torch.testing.assert_close(loss(z_s.detach(), z_t), composed.detach())
    torch.testing.assert_close(
        torch.autograd.grad(3 * fused, z_s), torch.autograd.grad(3 * composed, z_s)
    )


def test_gradients_of_both_networks_and_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    z_s, z_t = (torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in "st")
    z_s.requires_grad_()

    def loss(z_s: Tensor, z_t: Tensor) -> Tensor:
        return ldrld(z_s, z_t, alpha=2.0, beta=0.5, depth=3, temperature=2.0)

    assert torch.autograd.gradgradcheck(lambda z: loss(z, z_t), z_s)
    assert torch.autograd.gradcheck(loss, (z_s, z_t.requires_grad_()))


def test_saved_memory_is_a_tenth_of_the_straightforward_form() -> None:
    z_s, z_t = torch.randn(64, 100), torch.randn(64, 100)
    z_s.requires_grad_()

    def saved_bytes(loss: Callable[[], Tensor]) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            kept = loss()
        assert kept.requires_grad
        return sum(storages.values())

    def plain() -> Tensor:
        local, rest = straightforward_parts(z_s, z_t, 7, 4.0, True)
        return 10.5 * local + 7.0 * rest

    ours = saved_bytes(lambda: ldrld(z_s, z_t, alpha=10.5, beta=7.0, depth=7, temperature=4.0))
    assert ours == 3 * z_s.nbytes  # both logits and the gradient
    assert ours < saved_bytes(plain) / 10


def test_compiles_whole() -> None:
    z_s, z_t = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)

    def loss(z_s: Tensor) -> Tensor:
        return ldrld(z_s, z_t, alpha=2.0, beta=0.5, depth=3, temperature=4.0)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    got, expected = compiled(z_s), loss(z_s)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, z_s), torch.autograd.grad(expected, z_s))


def test_total_is_the_weighted_sum_of_its_parts() -> None:
    z_s, z_t = torch.randn(4, 9, dtype=torch.float64), torch.randn(4, 9, dtype=torch.float64)
    local = ldrld_local(z_s, z_t, depth=3, temperature=4.0)
    rest = ldrld_rntk(z_s, z_t, depth=3, temperature=4.0)
    total = ldrld(z_s, z_t, alpha=2.0, beta=0.5, depth=3, temperature=4.0)
    torch.testing.assert_close(total, 2.0 * local + 0.5 * rest)


def test_at_depth_2_the_group_has_weight_1() -> None:
    z_s, z_t = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    top = z_s.topk(2, dim=1).indices
    pair = kd(z_s.gather(1, top), z_t.gather(1, top), temperature=4.0)
    weight = 2.0 * math.exp(-0.05 * 3) / 2.5
    expected = (weight * pair + pair) / 2
    torch.testing.assert_close(ldrld_local(z_s, z_t, depth=2, temperature=4.0), expected)


def test_local_and_rest_have_disjoint_gradients() -> None:
    z_s = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    z_t = torch.randn(4, 9, dtype=torch.float64)
    top = torch.zeros(4, 9, dtype=torch.bool).scatter(1, z_s.topk(3, dim=1).indices, value=True)
    (local,) = torch.autograd.grad(ldrld_local(z_s, z_t, depth=3, temperature=4.0), z_s)
    (rest,) = torch.autograd.grad(ldrld_rntk(z_s, z_t, depth=3, temperature=4.0), z_s)
    assert torch.equal(local != 0, top)
    assert torch.equal(rest != 0, ~top)


class CountOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_depth_adds_no_operators() -> None:
    counts = set()
    for depth in (3, 5, 7, 9):
        z_s, z_t = torch.randn(4, 20, requires_grad=True), torch.randn(4, 20)

        def step(z_s: Tensor = z_s, z_t: Tensor = z_t, depth: int = depth) -> None:
            ldrld(z_s, z_t, alpha=1.0, beta=1.0, depth=depth, temperature=4.0).backward()

        step()  # the pairs' weights are made once
        z_s.grad = None
        with CountOperators() as mode:
            step()
        counts.add(mode.count)
    assert len(counts) == 1


@pytest.mark.parametrize(("depth", "classes"), [(1, 10), (9, 10), (10, 10), (11, 10)])
def test_function_refuses_a_depth_out_of_bounds(depth: int, classes: int) -> None:
    z = torch.randn(2, classes)
    with pytest.raises(ValueError, match=f"got depth={depth}, classes={classes}"):
        ldrld(z, z, alpha=1.0, beta=1.0, depth=depth, temperature=4.0)


def test_method_refuses_too_few_classes_before_training() -> None:
    refuse = METHODS["ldrld"].refuse
    eight = OutputShapes(8, 64)
    reason = refuse(PairShapes(eight, eight, batch_size=64), {"depth": 7})
    assert "depth + 2 = 9, but got 8 (depth <= 6 would do)" in reason
    assert refuse(PairShapes(eight, eight, batch_size=64), {"depth": 6}) == ""
    ten = OutputShapes(10, 64)
    assert "but got 10 and 8" in refuse(PairShapes(ten, eight, batch_size=64), {"depth": 7})
