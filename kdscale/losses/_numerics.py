"""The arithmetic that several methods share: precision, KL, and a gradient beside the value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def widen(value: T) -> T:
    """Returns a float16 or bfloat16 tensor as float32, anything else as it is."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()  # type: ignore[return-value]  # T is Tensor here
    return value


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Returns ``function`` computing in float32 at least, whatever autocast says outside.

    Half-precision tensor arguments are widened; float32 and float64 ones stay as they are.
    """

    @functools.wraps(function)
    def wide(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        values: list[Any] = [*args, *kwargs.values()]
        device = next(value.device.type for value in values if isinstance(value, Tensor))
        wide_args: list[Any] = [widen(value) for value in args]
        wide_kwargs: dict[str, Any] = {name: widen(value) for name, value in kwargs.items()}
        if not torch.is_autocast_enabled(device):
            # The context costs as much as a small loss, so it is entered where it matters.
            return function(*wide_args, **wide_kwargs)
        with torch.autocast(device, enabled=False):
            return function(*wide_args, **wide_kwargs)

    return wide


def require_same_shape(student: Tensor, teacher: Tensor, axes: str) -> None:
    """Raises if the two tensors are not both matrices of one shape.

    Args:
        student: The student's tensor.
        teacher: The teacher's tensor.
        axes: What the two axes are, for the message: ``"[B, C]"``.

    Raises:
        ValueError: The shapes differ or are not two-dimensional.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must both be {axes}, "
            f"but got {list(student.shape)} and {list(teacher.shape)}"
        )


def require_same_maps(student: Tensor, teacher: Tensor) -> None:
    """Raises a ValueError if the two maps are not both ``[B, C, H, W]`` of one shape."""
    if student.ndim != 4 or student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must both be [B, C, H, W], "
            f"but got {list(student.shape)} and {list(teacher.shape)}"
        )


def require_same_grid(student: Tensor, teacher: Tensor) -> None:
    """Raises a ValueError if two maps differ in batch, height or width; channels may differ."""
    grids = [(*x.shape[:1], *x.shape[2:]) for x in (student, teacher)]
    if student.ndim != 4 or teacher.ndim != 4 or grids[0] != grids[1]:
        raise ValueError(
            "student and teacher maps must have one batch and grid, "
            f"but got {list(student.shape)} and {list(teacher.shape)}"
        )


def mean_kl(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns mean_b KL(softmax(z_t) ‖ softmax(z_s)), a scalar: sum over classes, mean over B.

    Args:
        z_s: Student scores ``[B, K]`` over any set of K classes, already divided by T.
        z_t: Teacher scores ``[B, K]`` over the same classes, already divided by T.
    """
    log_q = F.log_softmax(z_s, dim=1)
    log_p = F.log_softmax(z_t, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def kl_rows(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Returns KL(p ‖ q) summed over the last axis, for log-probabilities of one shape."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def binary_kl(u_s: Tensor, u_t: Tensor) -> Tensor:
    """Returns KL(Bernoulli(σ(u_t)) ‖ Bernoulli(σ(u_s))) elementwise.

    A softmax over two scores is the sigmoid of their difference, so this is the KL divergence of
    two two-way softmaxes. It never takes the logarithm of a probability: finite for any finite u,
    exactly zero where u_s = u_t.

    Args:
        u_s: Student logits of the two-way choice, any shape.
        u_t: Teacher logits, same shape.
    """
    p = torch.sigmoid(u_t)
    cross_entropy = F.binary_cross_entropy_with_logits(u_s, p, reduction="none")
    return cross_entropy - F.binary_cross_entropy_with_logits(u_t, p, reduction="none")


def without_classes(z: Tensor, classes: Tensor) -> Tensor:
    """Returns the scores with some classes taken out of every later softmax.

    The score put there is finite, so that 0 x (difference of two such scores) stays 0 in a KL, and
    so low that its exponential is exactly 0 beside any logit, unlike the official -1000.

    Args:
        z: Scores ``[B, C]``, already divided by T.
        classes: Class indices to take out, int64 ``[B, K]``.
    """
    return z.scatter(1, classes, torch.finfo(z.dtype).min / 2)


Loss = Callable[[Tensor, Tensor], Tensor]
Fused = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def with_gradient(loss: Loss, fused: Fused, student: Tensor, teacher: Tensor) -> Tensor:
    """Returns ``loss(student, teacher)``, computed by ``fused`` where the student alone learns.

    ``fused`` computes the value and its gradient together, so autograd keeps no graph: beside the
    two inputs that gradient alone is saved. ``loss`` is the same function as a composition of
    differentiable operators. It serves where no gradient is wanted or the teacher wants one too,
    where the gradient itself is differentiated, and under torch.compile, which fuses by itself.
    The transforms of torch.func are not served: they raise.

    Args:
        loss: The loss of (student, teacher), a scalar.
        fused: The same value with its gradient in the student; called without autograd.
        student: The student's tensor.
        teacher: The teacher's tensor.
    """
    learns = torch.is_grad_enabled() and student.requires_grad and not teacher.requires_grad
    if not learns or torch.compiler.is_compiling():
        return loss(student, teacher)
    value: Tensor = _ValueWithGradient.apply(student, teacher, loss, fused)
    return value


class _ValueWithGradient(torch.autograd.Function):
    """(student, teacher, loss, fused) -> the value, with its gradient in the student at hand."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, loss: Loss, fused: Fused) -> Tensor:
        value, gradient = fused(student, teacher)
        ctx.loss = loss
        ctx.save_for_backward(student, teacher, gradient)
        return value

    @staticmethod
    def backward(ctx: Any, of_value: Tensor) -> tuple[Tensor, None, None, None]:
        student, teacher, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: what is returned will be differentiated
            value = ctx.loss(student, teacher)
            (gradient,) = torch.autograd.grad(value, student, create_graph=True)
        return of_value * gradient, None, None, None
