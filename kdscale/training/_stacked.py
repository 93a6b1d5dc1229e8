"""Students of one architecture whose networks run as one; each objective reads its own slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdscale.models import Network, StagedNetwork, classify_map, linear_layer
from kdscale.outputs import Affine, Need, Outputs, numbers_of, preactivation, stage
from kdscale.training._exchange import Exchange
from kdscale.training._stack import Kind, Stack, make_engine
from kdscale.training._stack_trial import WHOLE
from kdscale.training._step import Lesson
from kdscale.training._student import Student


class Stacked:
    """An `Executor` that computes networks together, and the objectives one after the other.

    Args:
        kind: How networks are stacked.
        students: Those that can be stacked, see `joins`.
        exchange: Takes each student's gradients.
    """

    def __init__(self, kind: Kind, students: Sequence[Student], exchange: Exchange) -> None:
        networks = [student.network for student in students]
        self._exchange = exchange
        self._stack = Stack(networks)
        self._engine = make_engine(kind, networks, self._stack)
        asked = frozenset[Need]().union(*(student.own_needs for student in students))
        self._needs = (asked - WHOLE) | ({"map"} if "class_maps" in asked else frozenset())

    def step(self, students: Sequence[Student], lesson: Lesson) -> None:
        """Trains on one batch.

        Args:
            students: Those that were stacked, in the same order.
            lesson: The batch and what the teacher says to it.
        """
        axis = self._engine.axis
        students[0].draw_from_stream(lesson)
        bf16 = students[0].member.recipe.precision == "bf16"
        with torch.autocast(lesson.images.device.type, torch.bfloat16, enabled=bf16):
            together = self._engine.forward(lesson.images, self._needs)
        slices: list[dict[Need, Tensor]] = []
        for number, student in enumerate(students):
            parts = {n: part.detach().select(axis, number) for n, part in together.items()}
            slices.append({name: part.requires_grad_() for name, part in parts.items()})
            with self._exchange.failing_alone(student):
                with torch.autocast(lesson.images.device.type, torch.bfloat16, enabled=bf16):
                    outputs = outputs_of(student.network, slices[-1], student.own_needs)
                student.compute(lesson, outputs)
        names = [name for name in together if any(own[name].grad is not None for own in slices)]
        gradients = [torch.stack([_gradient(own[name]) for own in slices], axis) for name in names]
        torch.autograd.backward([together[name] for name in names], gradients)
        self._stack.hand_out_gradients()
        for student in students:
            if not student.failure:
                with self._exchange.failing_alone(student):
                    self._exchange.add(student)

    def close(self) -> None:
        """Gives the students weights of their own."""
        self._stack.release()


def joins(student: Student) -> bool:
    """Returns whether a student can be stacked with others of the cohort's architecture.

    Not with an end of its own (SimKD, NORM), nor if its objective runs the network, or a part of
    it, a second time.
    """
    return (
        not student.second_view
        and "tail" not in student.own_needs
        and not student.has_end_of_its_own
    )


def outputs_of(network: Network, parts: Mapping[Need, Tensor], needs: frozenset[Need]) -> Outputs:
    """Returns a network's outputs, of which the tensors were computed elsewhere.

    Args:
        network: The network, for its classifier and its norms.
        parts: At least the tensors that ``needs`` names; for class maps the map.
        needs: What to hand out.
    """
    classifier = None
    if needs & {"classifier", "class_maps"}:
        layer = linear_layer(network)
        bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        classifier = Affine(layer.weight, bias)
    numbers = numbers_of("preactivation", needs)
    norms = {n: network.norm_of(n) for n in numbers} if isinstance(network, StagedNetwork) else {}
    return Outputs(
        logits=parts["logits"],
        embedding=parts["embedding"] if "embedding" in needs else None,
        map=parts["map"] if "map" in needs else None,
        class_maps=(
            classify_map(parts["map"], *classifier)
            if classifier is not None and "class_maps" in needs
            else None
        ),
        stages={n: parts[stage(n)] for n in sorted(numbers_of("stage", needs))},
        preactivations={n: parts[preactivation(n)] for n in sorted(numbers)},
        norms={n: Affine(norm.weight, norm.bias) for n, norm in norms.items() if norm is not None},
        classifier=classifier if "classifier" in needs else None,
    )


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
