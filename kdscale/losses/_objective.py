"""The objective: cross-entropy plus weighted methods."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.errors import UserError, did_you_mean
from kdscale.losses._gather import gather_batch
from kdscale.losses._method import PairShapes, Term
from kdscale.losses._numerics import widen
from kdscale.outputs import Need, Outputs
from kdscale.records import Value

RESERVED_NAMES = ("loss", "ce")


@dataclass(frozen=True)
class TermConfig:
    """One weighted method of an objective.

    Attributes:
        name: Its label in metrics, unique in the objective; not ``loss`` or ``ce``.
        method: The method's name.
        weight: Multiplies the method's value in the objective.
        hyperparameters: Given hyperparameters by name; the others take their defaults.
    """

    name: str
    method: str
    weight: float = 1.0
    hyperparameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class _BuiltTerm:
    name: str
    weight: float
    couples_batch: bool
    needs: frozenset[Need]
    term: Term


class Objective(nn.Module):
    """Cross-entropy + weighted methods: what a student minimises.

    Its parameters, if it has any (RSD's decoupler), train with the student's and are thrown away
    with the objective. They are initialised from (seed, term name) alone and leave the global
    random state untouched.

    Args:
        ce_weight: Multiplies the mean cross-entropy of the student's logits.
        label_smoothing: Of the cross-entropy, 0 <= label_smoothing < 1.
        terms: The weighted methods; may be empty.
        shapes: Student's and teacher's output shapes and the global batch size.
        seed: The trial's seed.

    Attributes:
        needs: What the networks must put out; always with ``logits``.

    Raises:
        UserError: A bad weight, name or hyperparameter, or a method that cannot serve this pair.
    """

    def __init__(
        self,
        ce_weight: float,
        label_smoothing: float,
        terms: Sequence[TermConfig],
        shapes: PairShapes,
        seed: int,
    ) -> None:
        super().__init__()
        _require_weight("ce_weight", ce_weight)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"0 <= label_smoothing < 1 must hold, but got {label_smoothing}")
        _require_unique_names([term.name for term in terms])
        self.ce_weight = ce_weight
        self.label_smoothing = label_smoothing
        self._terms = [_build_term(term, shapes, seed) for term in terms]
        # Registers the terms that own parameters.
        self.adaptors = nn.ModuleList(
            built.term for built in self._terms if isinstance(built.term, nn.Module)
        )
        self.needs: frozenset[Need] = frozenset[Need]({"logits"}).union(
            *(built.needs for built in self._terms)
        )
        self._coupled_needs: frozenset[Need] = frozenset[Need]().union(
            *(built.needs for built in self._terms if built.couples_batch)
        )

    def forward(
        self, student: Outputs, teacher: Outputs | None, target: Tensor
    ) -> dict[str, Tensor]:
        """Returns the loss and its unweighted parts, all scalars in float32 at least.

        ``loss`` is ce_weight x ``ce`` + Σ weight x term, and the only one with a gradient. ``ce``
        and one entry per term name hold the parts before their weights. Terms that look across
        the batch see the global batch of all workers (see `gather_batch`).

        Args:
            student: The student's outputs for this worker's batch.
            teacher: The teacher's, computed without gradient; None only if there are no terms.
            target: Labels, int64 ``[B]``.

        Raises:
            ValueError: There are terms but no teacher.
        """
        if self._terms and teacher is None:
            raise ValueError("an objective with methods needs the teacher's outputs, but got None")
        with torch.autocast(student.logits.device.type, enabled=False):
            student = _widen(student)
            ce = F.cross_entropy(student.logits, target, label_smoothing=self.label_smoothing)
            loss = self.ce_weight * ce
            parts = {"ce": ce.detach()}
            if teacher is not None:
                for built, value in self._values(student, _widen(teacher), target):
                    loss = loss + built.weight * value
                    parts[built.name] = value.detach()
        return {"loss": loss, **parts}

    def _values(
        self, student: Outputs, teacher: Outputs, target: Tensor
    ) -> Iterator[tuple[_BuiltTerm, Tensor]]:
        """Yields each term with its unweighted value."""
        batch = gathered = (student, teacher, target)
        if self._coupled_needs:
            needs = self._coupled_needs
            gathered = (_gather(student, needs), _gather(teacher, needs), gather_batch(target))
        for built in self._terms:
            yield built, built.term(*(gathered if built.couples_batch else batch))


def _build_term(config: TermConfig, shapes: PairShapes, seed: int) -> _BuiltTerm:
    from kdscale.losses import METHODS  # the registry's module imports this one

    label = f'term "{config.name}"'
    if config.method not in METHODS:
        hint = did_you_mean(config.method, METHODS) or f"known: {', '.join(METHODS)}"
        raise UserError(f'{label}: there is no method "{config.method}" ({hint})')
    method = METHODS[config.method]
    _require_weight(f"{label}: weight", config.weight)
    hyperparameters = method.complete(config.hyperparameters)
    if reason := method.refuse(shapes, hyperparameters):
        raise UserError(f"{label}: {reason}")
    with _keyed_random_state(f"{seed}/{config.name}"):
        term = method.build(shapes, hyperparameters)
    return _BuiltTerm(
        config.name, config.weight, method.couples_batch, method.needs(hyperparameters), term
    )


@contextmanager
def _keyed_random_state(key: str) -> Iterator[None]:
    """Seeds the CPU's global generator from ``key`` inside the block and restores it after."""
    digest = hashlib.sha256(key.encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed accelerators too.
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        yield


def _require_weight(what: str, weight: float) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"{what} must be finite and >= 0, but got {weight}")


def _require_unique_names(names: Sequence[str]) -> None:
    for name in names:
        if name in RESERVED_NAMES:
            raise UserError(f'a term\'s name must not be "loss" or "ce", but got "{name}"')
        if names.count(name) > 1:
            raise UserError(f'term names must be unique, but "{name}" is there twice')


def _widen(outputs: Outputs) -> Outputs:
    return Outputs(
        widen(outputs.logits),
        widen(outputs.embedding),
        tuple(widen(stage) for stage in outputs.stages),
    )


def _gather(outputs: Outputs, needs: frozenset[Need]) -> Outputs:
    """Returns the outputs of the global batch: logits, and the embedding if it is needed."""
    embedding = outputs.embedding
    if embedding is None or "embedding" not in needs:
        return Outputs(gather_batch(outputs.logits))
    return Outputs(gather_batch(outputs.logits), gather_batch(embedding))
