"""The objective: cross-entropy plus weighted methods."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.errors import UserError, did_you_mean
from kdscale.losses._batch import Batch
from kdscale.losses._gather import gather_outputs, gather_rows, worker_count
from kdscale.losses._method import Needs, PairShapes, Term
from kdscale.losses._numerics import widen
from kdscale.losses._registry import METHODS
from kdscale.losses._schedule import Schedule
from kdscale.losses._term_config import TermConfig
from kdscale.outputs import LOGITS, Need, Outputs

RESERVED_NAMES = ("loss", "ce")


@dataclass(frozen=True)
class _BuiltTerm:
    name: str
    weight: float
    schedule: Schedule
    gathers: bool
    needs: Needs
    salt: int
    skips: bool
    term: Term


class Objective(nn.Module):
    """Cross-entropy + weighted methods: what a student minimises.

    Its parameters and memories, if it has any (RSD's decoupler, CRD's banks), train with the
    student and are thrown away with the objective. They are initialised from (seed, term name)
    alone and leave the global random state untouched.

    Args:
        ce_weight: Multiplies the mean cross-entropy of the student's logits.
        label_smoothing: Of the cross-entropy, 0 <= label_smoothing < 1.
        terms: The weighted methods; may be empty.
        shapes: Student's and teacher's output shapes and the global batch size.
        seed: The trial's seed.
        ce_start_epoch: The first epoch with the cross-entropy: for methods that prepare the
            student's features alone first (AB, FT).

    Attributes:
        student_needs: What the student must put out; always with ``logits``.
        teacher_needs: What the teacher must put out; always with ``logits``.
        second_view: Whether a term asks for a second view of each image.
        preparing: Whether this epoch comes before the cross-entropy's first one: parameters that
            no method reaches are to stay as they are.
        pauses: Whether some parameters may have no part in a step.

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
        ce_start_epoch: int = 1,
    ) -> None:
        super().__init__()
        _require_weight("ce_weight", ce_weight)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"0 <= label_smoothing < 1 must hold, but got {label_smoothing}")
        _require_unique_names([term.name for term in terms])
        self.ce_weight = ce_weight
        self.label_smoothing = label_smoothing
        self._ce_schedule = Schedule(start_epoch=ce_start_epoch)
        self._terms = [_build_term(term, shapes, seed) for term in terms]
        # Registers the terms that own parameters.
        self.adaptors = nn.ModuleList(
            built.term for built in self._terms if isinstance(built.term, nn.Module)
        )
        needs = [built.needs for built in self._terms]
        self.student_needs: frozenset[Need] = LOGITS.union(*(need.student for need in needs))
        self.teacher_needs: frozenset[Need] = LOGITS.union(*(need.teacher for need in needs))
        self.pauses = any(
            isinstance(built.term, nn.Module) and built.skips for built in self._terms
        )
        self.second_view = any(need.second_view for need in needs)
        # The epoch's weights: a tensor, so that a compiled step need not be compiled each epoch.
        weights = torch.zeros(1 + len(self._terms), dtype=torch.float64)
        self.register_buffer("_weights", weights, persistent=False)
        self._active = [False] * (1 + len(self._terms))
        self.start_epoch(1, 1)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Sets the weights of an epoch; a term of weight 0 is not computed.

        Args:
            epoch: The epoch, from 1.
            epochs: Epochs of a full trial.
        """
        self._epoch, self._epochs = epoch, epochs
        ce_factor = self._ce_schedule.factor(epoch, epochs)
        self.preparing = ce_factor == 0
        weights = [self.ce_weight * ce_factor]
        factors = [built.schedule.factor(epoch, epochs) for built in self._terms]
        weights += [built.weight * f for built, f in zip(self._terms, factors, strict=True)]
        self._active = [True] + [factor > 0 for factor in factors]
        buffer = self.get_buffer("_weights")
        buffer.copy_(torch.tensor(weights, dtype=torch.float64))

    def forward(
        self,
        student: Outputs,
        teacher: Outputs | None,
        target: Tensor,
        *,
        index: Tensor | None = None,
        second_view: tuple[Outputs, Outputs | None] | None = None,
        key: int = 0,
        first: int = 0,
        whole: int | None = None,
    ) -> dict[str, Tensor]:
        """Returns the loss and its unweighted parts, all scalars in float32 at least.

        ``loss`` is ce_weight x ``ce`` + Σ weight x factor x term, and the only one with a
        gradient. ``ce`` and one entry per term name hold the parts before their weights; a term
        outside its epochs is 0. Terms that look across the batch see the global batch of all
        workers (see `gather_batch`).

        Args:
            student: The student's outputs for this worker's batch.
            teacher: The teacher's, computed without gradient; None only if there are no terms.
            target: Labels, int64 ``[B]``.
            index: The images' numbers in the training split, int64 ``[B]``.
            second_view: Student's and teacher's outputs for the second view, if a term asks.
            key: Seed of the step's random numbers, the same on all workers.
            first: Place of this worker's first image in the global batch.
            whole: Images in the global batch; None if there is one worker.

        Raises:
            ValueError: There are terms but no teacher.
        """
        if self._terms and teacher is None:
            raise ValueError("an objective with methods needs the teacher's outputs, but got None")
        with torch.autocast(student.logits.device.type, enabled=False):
            student = _widen(student)
            ce = F.cross_entropy(student.logits, target, label_smoothing=self.label_smoothing)
            weights: Tensor = self.get_buffer("_weights")
            loss = weights[0].to(ce.dtype) * ce
            parts = {"ce": ce.detach()}
            if teacher is not None:
                student_2, teacher_2 = second_view or (None, None)
                batch = Batch(
                    student,
                    _widen(teacher),
                    target,
                    index,
                    self._epoch,
                    self._epochs,
                    key,
                    first,
                    whole,
                    None if student_2 is None else _widen(student_2),
                    None if teacher_2 is None else _widen(teacher_2),
                )
                for number, built in enumerate(self._terms, start=1):
                    if not self._active[number]:
                        parts[built.name] = torch.zeros_like(parts["ce"])
                        continue
                    value = built.term(_see(built, batch))
                    loss = loss + weights[number].to(value.dtype) * value
                    parts[built.name] = value.detach()
        return {"loss": loss, **parts}


def _see(built: _BuiltTerm, batch: Batch) -> Batch:
    """Returns the batch as one term sees it."""
    batch = replace(batch, key=batch.key ^ built.salt)
    if not built.gathers:
        return batch
    needs = built.needs
    second = batch.student_2, batch.teacher_2
    return replace(
        batch,
        student=gather_outputs(batch.student, needs.student),
        teacher=gather_outputs(batch.teacher, needs.teacher),
        target=gather_rows(batch.target),
        index=None if batch.index is None else gather_rows(batch.index),
        first=0,
        whole=None,
        student_2=None if second[0] is None else gather_outputs(second[0], needs.student),
        teacher_2=None if second[1] is None else gather_outputs(second[1], needs.teacher),
    )


def _build_term(config: TermConfig, shapes: PairShapes, seed: int) -> _BuiltTerm:
    label = f'term "{config.name}"'
    if config.method not in METHODS:
        hint = did_you_mean(config.method, METHODS) or "`kdscale methods` lists them"
        raise UserError(f'{label}: there is no method "{config.method}" ({hint})')
    method = METHODS[config.method]
    weight = method.weight if config.weight is None else config.weight
    _require_weight(f"{label}: weight", weight)
    if broken := config.schedule.broken_rule():
        field, rule = broken
        raise UserError(f"{label}: {field} {rule}, but got {getattr(config.schedule, field)}")
    hyperparameters = method.complete(config.hyperparameters)
    if config.per_worker:
        shapes = replace(shapes, batch_size=shapes.batch_size // worker_count())
    if reason := method.refusal(shapes, hyperparameters):
        raise UserError(f"{label}: {reason}")
    digest = hashlib.sha256(f"{seed}/{config.name}".encode()).digest()
    with _random_state(int.from_bytes(digest[:8], "little") >> 1):
        term = method.build(shapes, hyperparameters)
    return _BuiltTerm(
        config.name,
        weight,
        config.schedule,
        method.couples_batch and not config.per_worker,
        method.needs(shapes, hyperparameters),
        int.from_bytes(digest[8:15], "little"),
        method.skips or config.schedule.pauses,
        term,
    )


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seeds the CPU's global generator inside the block and restores it after."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed accelerators too.
        torch.default_generator.manual_seed(seed)
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
    return replace(
        outputs,
        logits=widen(outputs.logits),
        embedding=widen(outputs.embedding),
        map=widen(outputs.map),
        class_maps=widen(outputs.class_maps),
        stages={number: widen(part) for number, part in outputs.stages.items()},
        preactivations={number: widen(part) for number, part in outputs.preactivations.items()},
    )
