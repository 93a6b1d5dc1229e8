"""A student in training: network, objective, optimiser, progress and checkpoint of one trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdscale import __version__
from kdscale.errors import UserError, about
from kdscale.losses import METHODS, Objective, PairShapes, TermConfig
from kdscale.models import (
    Network,
    create_model,
    refuse_channels_last,
    unwrap,
    wrap_student,
    wrapping,
)
from kdscale.outputs import Need, Outputs
from kdscale.training._checkpoint import load_checkpoint, save_atomically
from kdscale.training._clock import Account
from kdscale.training._compile import begin_compiled_step, compile_step
from kdscale.training._definition import definition_of
from kdscale.training._group import Group
from kdscale.training._recipe import learning_rate, make_optimizer
from kdscale.training._spec import ModelSpec, RecipeSpec
from kdscale.training._step import Lesson, Step

Row = Mapping[str, float]
"""The metrics of one epoch, ``epoch`` included."""


@dataclass(frozen=True)
class Member:
    """What one trial of a cohort trains; everything else it shares with the others.

    Attributes:
        name: The trial's name, unique in the study; also the name of its folder.
        ce_weight: Weight of the cross-entropy with the labels.
        terms: The methods with their weights; empty for an undistilled student or a teacher.
        recipe: The recipe; within a cohort only its per-student fields may differ.
        folder: Where the trial's checkpoint and weights go.
        ce_start_epoch: The first epoch with the cross-entropy.
        told: Epochs that the study knows already; None where it keeps no count.
        seconds: Seconds of training compute that it gets; None where its budget is epochs.
    """

    name: str
    ce_weight: float
    terms: tuple[TermConfig, ...]
    recipe: RecipeSpec
    folder: Path
    ce_start_epoch: int = 1
    told: int | None = None
    seconds: float | None = None


class Student:
    """One trial's student with all of its state.

    The student's initialisation is a function of the seed alone, so all trials of one seed start
    from the same weights; the objective's own parameters are keyed by (seed, term name).
    """

    def __init__(
        self,
        member: Member,
        model: ModelSpec,
        *,
        seed: int,
        epochs: int,
        num_classes: int,
        image_size: int,
        teacher: Network | None,
        train_labels: Tensor,
        group: Group,
    ) -> None:
        """Builds the student on the group's device, at epoch 0.

        Args:
            member: What the trial trains.
            model: The student's architecture.
            seed: The trial's seed.
            epochs: Epochs of a full trial.
            num_classes: C of the logits.
            image_size: Height and width of the images in pixels.
            teacher: The teacher; None without methods.
            train_labels: Labels of the training split, int64 ``[n]`` on the CPU.
            group: The workers.

        Raises:
            UserError: If a method cannot serve this pair of networks, with the reason.
        """
        recipe = member.recipe
        with about("task.student"):
            network = create_model(
                model.model, num_classes, image_size=image_size, args=model.args, seed=seed
            )
        teacher_shapes = network.shapes if teacher is None else teacher.shapes
        shapes = PairShapes(network.shapes, teacher_shapes, recipe.batch_size, train_labels)
        if teacher is not None:
            network = _with_end(network, teacher, member.terms, shapes, seed)
            shapes = replace(shapes, student=network.shapes)
        objective = Objective(
            member.ce_weight,
            recipe.label_smoothing,
            member.terms,
            shapes,
            seed,
            member.ce_start_epoch,
        )
        if recipe.channels_last:
            if group.device.type == "cpu" and (reason := refuse_channels_last(network)):
                raise UserError(f"recipe.channels_last: {reason}")
            network = network.to(memory_format=torch.channels_last)
        if recipe.sync_batchnorm:
            if group.device.type != "cuda":
                raise UserError("recipe.sync_batchnorm: SyncBatchNorm runs on GPUs only")
            convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
            network, objective = convert(network), convert(objective)
        self.member = member
        self.epochs = epochs
        self.epoch = 0
        self.saved = 0
        self.history: list[Row] = []
        self.seconds = 0.0
        self.account = Account()
        self.failure = ""
        self.network = network
        self.terms = ("loss", "ce", *(term.name for term in member.terms))
        self._group = group
        self._seed = seed
        self._definition = definition_of(
            member.ce_weight, member.ce_start_epoch, member.terms, recipe
        )
        self._step = Step(network, objective, bf16=recipe.precision == "bf16").to(group.device)
        self._optimizer = make_optimizer(recipe, self._step)
        if recipe.compile:
            compile_step(self._step, recipe, group.device)
        self._sums = torch.zeros(len(self.terms) + 1, dtype=torch.float64, device=group.device)

    @property
    def needs(self) -> frozenset[Need]:
        """The teacher outputs that the objective asks for; empty without methods."""
        return self._step.objective.teacher_needs if self.member.terms else frozenset()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What learns: the network's parameters and the objective's own."""
        return [parameter for parameter in self._step.parameters() if parameter.requires_grad]

    @property
    def skips(self) -> bool:
        """Whether a step may leave some of the parameters out."""
        return self._step.objective.pauses

    @property
    def own_needs(self) -> frozenset[Need]:
        """The student's own outputs that the objective asks for."""
        return self._step.objective.student_needs

    @property
    def has_end_of_its_own(self) -> bool:
        """Whether a method has changed the network's end."""
        return bool(wrapping(self.network))

    @property
    def second_view(self) -> bool:
        """Whether the objective asks for a second view of each image."""
        return self._step.objective.second_view

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained or the trial has failed."""
        return bool(self.failure) or self.epoch >= self.epochs

    def start_epoch(self) -> None:
        """Sets the epoch's learning rate and weights and forgets the sums of the last epoch."""
        self._step.train()
        self._step.objective.start_epoch(self.epoch + 1, self.epochs)
        rate = learning_rate(self.member.recipe, self.epoch + 1, self.epochs)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate
        self._sums.zero_()

    def step(self, lesson: Lesson) -> None:
        """Trains on one batch, as the only worker.

        Args:
            lesson: The batch and what the teacher says to it.
        """
        self.compute(lesson)
        self.apply()

    def draw_from_stream(self, lesson: Lesson) -> None:
        """Seeds dropout and the like for one batch.

        The stream is keyed by (seed, epoch, step, worker): never by what else runs in this process,
        nor by how often the trial was restarted.
        """
        torch.manual_seed(_stream(self._seed, self.epoch, lesson.number, self._group.rank))

    def compute(self, lesson: Lesson, outputs: Outputs | None = None) -> None:
        """Leaves this worker's gradients for one batch with the parameters.

        Args:
            lesson: The batch and what the teacher says to it.
            outputs: The network's outputs as leaves, if the student is stacked with others: then
                they take the gradients.
        """
        size, rank = len(lesson.target), self._group.rank
        self.draw_from_stream(lesson)
        begin_compiled_step(self.member.recipe)
        losses, correct = self._step(
            lesson,
            outputs,
            key=_stream(self._seed, self.epoch, lesson.number),
            first=rank * size,
            whole=self._group.size * size,
        )
        losses["loss"].backward()
        parts = [losses[name].detach().double() for name in self.terms]
        self._sums += torch.stack([*parts, correct.double() / size])

    def apply(self) -> None:
        """Moves the parameters by their gradients, which are those of all workers by now."""
        if self._step.objective.preparing:
            _forget_zero_gradients(self._step)
        if self.member.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._step.parameters(), self.member.recipe.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def end_epoch(self, means: Sequence[float]) -> dict[str, float]:
        """Returns the epoch's training metrics and counts the epoch, or records the divergence.

        Args:
            means: Of each term, then of the correct predictions, over the epoch and all workers.
        """
        row: dict[str, float] = {
            "epoch": self.epoch + 1,
            "lr": self._optimizer.param_groups[0]["lr"],
        }
        row |= {f"train_{name}": mean for name, mean in zip(self.terms, means, strict=False)}
        row["train_accuracy"] = 100.0 * means[-1]
        broken = [name for name in self.terms if not math.isfinite(row[f"train_{name}"])]
        if broken:
            # The total is broken whenever a part is: name the part.
            part = next((name for name in broken if name != "loss"), "loss")
            self.failure = f"diverged at epoch {self.epoch + 1} ({part} is not finite)"
            return row
        self.epoch += 1
        return row

    def save(self) -> None:
        """Writes the checkpoint: all that a restart needs to end with the same bits.

        Random streams are pure functions of (seed, epoch, step), so seed and epoch hold them.
        """
        if self._group.rank != 0:
            self.saved = self.epoch
            return
        content: dict[str, Any] = {
            "trial": self.member.name,
            "seed": self._seed,
            "definition": [__version__, self._definition],
            "epoch": self.epoch,
            "history": [dict(row) for row in self.history],
            "seconds": self.seconds,
            "step": self._step.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        if self.member.seconds is not None:
            content["account"] = asdict(self.account)
        save_atomically(content, checkpoint_path(self.member.folder))
        self.saved = self.epoch

    def resume(self) -> None:
        """Loads the checkpoint if worker 0 has one: other nodes need not have the same files.

        Raises:
            UserError: If it cannot be read, or is of another trial, seed, objective or recipe.
        """
        path, content = checkpoint_path(self.member.folder), None
        if self._group.size > 1:
            here = self._group.rank == 0 and path.exists()
            content = self._group.hand_out(path.read_bytes() if here else None)
        if content is None and (self._group.size > 1 or not path.exists()):
            return
        saved = load_checkpoint(path, self._group.device, content=content)
        if (saved["trial"], saved["seed"]) != (self.member.name, self._seed):
            raise UserError(
                f"{path}: the checkpoint must be of trial {self.member.name} under seed "
                f"{self._seed}, but is of {saved['trial']} under seed {saved['seed']}"
            )
        # Earlier versions may have left it out, or have understood the same file otherwise.
        version, definition = saved.get("definition", ("", ""))
        if version == __version__ and definition != self._definition:
            raise UserError(
                f"{path}: the checkpoint must be of this trial's objective and recipe, but is of "
                "others (use another name, or delete it to train the trial from the first epoch)"
            )
        self._step.load_state_dict(saved["step"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.epoch = self.saved = saved["epoch"]
        self.history = list(saved["history"])
        self.seconds = saved["seconds"]
        if self.member.seconds is not None:
            self.account = Account(**saved["account"])

    def save_network(self, model: ModelSpec, num_classes: int) -> None:
        """Writes the bare student without adaptors; what replaced its end (SimKD) stays."""
        if self._group.rank == 0:
            path = student_path(self.member.folder)
            about = {"trial": self.member.name}
            save_network(unwrap(self.network), model, num_classes, path, about)


def _forget_zero_gradients(module: nn.Module) -> None:
    """Keeps weight decay and momentum from moving parameters that learn nothing yet."""
    found = [(p, p.grad) for p in module.parameters() if p.grad is not None]
    if not found:
        return
    # The largest entries in one transfer: a GPU is waited for once.
    largest = torch.stack(torch._foreach_norm([grad for _, grad in found], ord=math.inf)).tolist()
    for (parameter, _), size in zip(found, largest, strict=True):
        if size == 0:
            parameter.grad = None


def _with_end(
    network: Network,
    teacher: Network,
    terms: Sequence[TermConfig],
    shapes: PairShapes,
    seed: int,
) -> Network:
    """Returns the network with the end that one of the methods gives it, or as it is.

    Raises:
        UserError: If the method cannot serve this pair, or two methods want another end.
    """
    changing = [term for term in terms if METHODS[term.method].student]
    if len(changing) > 1:
        names = " and ".join(term.name for term in changing)
        raise UserError(f"only one method may change the student's end, but {names} both do")
    for term in changing:
        method = METHODS[term.method]
        hyperparameters = method.complete(term.hyperparameters)
        if reason := method.refusal(shapes, hyperparameters):
            raise UserError(f'term "{term.name}": {reason}')
        if method.student == "norm":  # whose map is the expanded one
            _refuse_readers_of_the_map([other for other in terms if other is not term], shapes)
        if method.student:
            return wrap_student(method.student, network, teacher, hyperparameters, seed)
    return network


def _refuse_readers_of_the_map(terms: Sequence[TermConfig], shapes: PairShapes) -> None:
    for term in terms:
        method = METHODS[term.method]
        hyperparameters = method.complete(term.hyperparameters)
        if method.refusal(shapes, hyperparameters):
            continue  # the objective says why
        if "map" in method.needs(shapes, hyperparameters).student:
            raise UserError(f'term "{term.name}": {method.name} reads the map, which norm expands')


def save_network(
    network: Network,
    model: ModelSpec,
    num_classes: int,
    path: Path,
    about: Mapping[str, str | float],
) -> None:
    """Writes a network's weights with what is needed to build it again."""
    content = {
        "model": model.model,
        "args": dict(model.args),
        "num_classes": num_classes,
        "about": dict(about),
        "wrapping": wrapping(network),
        "state": network.state_dict(),
    }
    save_atomically(content, path)


def checkpoint_path(folder: Path) -> Path:
    """Returns the path of a trial's checkpoint."""
    return folder / "checkpoint.pt"


def student_path(folder: Path) -> Path:
    """Returns the path of a finished trial's student."""
    return folder / "student.pt"


def _stream(*key: int) -> int:
    """Returns a 63-bit seed for a random stream, mixed from a key of integers."""
    mixed = 0x9E3779B97F4A7C15
    for part in key:
        mixed = (mixed ^ (part & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed ^= mixed >> 29
    return mixed >> 1


def union_of_needs(students: Sequence[Student]) -> frozenset[Need]:
    """Returns the teacher outputs that any of the students asks for."""
    return frozenset().union(*(student.needs for student in students))


def end_epoch(students: Sequence[Student], steps: int, group: Group) -> dict[str, dict[str, float]]:
    """Returns each student's training metrics by name, gathered from device and workers at once.

    Every worker then has the buffers of worker 0. That once an epoch is enough, because training
    never reads BatchNorm's running statistics.

    Args:
        students: Those that trained to the epoch's end.
        steps: Steps of the epoch.
        group: The workers.
    """
    if not students:
        return {}
    sums = torch.cat([student._sums for student in students])
    means = iter((group.sum(sums) / (steps * group.size)).tolist())
    rows = {s.member.name: s.end_epoch([next(means) for _ in s._sums]) for s in students}
    group.copy_buffers([student._step for student in students if not student.failure])
    return rows
