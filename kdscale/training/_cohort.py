"""The training loop: K students under one teacher pass. A solo run is a list of one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kdscale.data import Augmentation, TaskData, epoch_order, normalise, strong_views
from kdscale.errors import UserError
from kdscale.models import Network
from kdscale.outputs import Need, Outputs
from kdscale.training._backup import Backup
from kdscale.training._checkpoint import delete_drafts
from kdscale.training._evaluate import Score, evaluate
from kdscale.training._executor import Steps
from kdscale.training._group import Group
from kdscale.training._room import save_all
from kdscale.training._spec import ModelSpec
from kdscale.training._step import Lesson
from kdscale.training._student import Member, Row, Student, end_epoch, union_of_needs
from kdscale.training._teach import CachedTeacher, Teaching
from kdscale.training._transfer import to_device

_BEAT_SECONDS = 20.0

Status = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Progress:
    """How far one trial has come since the last time it was told.

    Attributes:
        name: The trial.
        status: Whether it goes on, here or in a later leg, and how it ended if not.
        rows: Metrics of the epochs since the last `Progress`; after a restart, of all epochs.
        reason: Why it ended, when it did not train to the last epoch; while it runs, what is wrong
            with its disk or its remote folder, if anything is.
        seconds: Seconds of training so far, restarts included: the trial's share of its cohort's,
            or its training compute, where budgets are seconds.
    """

    name: str
    status: Status
    rows: tuple[Row, ...]
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Cohort:
    """Trials that train together: one seed, one data order, one teacher pass.

    Attributes:
        model: The students' architecture.
        members: The trials to train.
        seed: Fixes initialisation, data order and augmentation.
        epochs: Epochs of a full trial.
        until: The last epoch of this leg; later ones are left to another cohort. None for all.
        per_trial_seconds: Stop a trial at the first epoch's end past so much training time.
    """

    model: ModelSpec
    members: tuple[Member, ...]
    seed: int
    epochs: int
    until: int | None = None
    per_trial_seconds: float | None = None


def train_cohort(
    cohort: Cohort,
    data: TaskData,
    teacher: Network | CachedTeacher | None,
    group: Group,
    backup: Backup | None = None,
    before_save: Callable[[], None] = lambda: None,
) -> Iterator[list[Progress]]:
    """Yields each trial's progress: once at the start, then after every epoch.

    Every epoch yielded is already in a checkpoint; with a backup, in one that other nodes can
    fetch, which is uploaded while the next epoch trains. Only while the backup is away the study
    folder's must do. While the disk is full it yields what it waits for, and waits.

    A member that has trained further than the others (its attempt was killed between two
    checkpoints) waits for them: batches are a function of (seed, epoch, index), so an epoch is the
    same whenever it is trained.

    Args:
        cohort: What to train.
        data: Training and validation images.
        teacher: The teacher on the group's device, or the same behind its cache; None if no
            member has a method.
        group: The workers.
        backup: Where checkpoints and students go as well; None for the study folder alone.
        before_save: Called before each checkpoint is written.

    Raises:
        UserError: If the batch size does not fit the data or the workers.
    """
    loop = CohortLoop(cohort, data, teacher, group, backup)
    loop.before_save = before_save
    yield from loop.run()


class CohortLoop:
    """A cohort's students, teacher and data, and what is done with them epoch by epoch."""

    def __init__(
        self,
        cohort: Cohort,
        data: TaskData,
        teacher: Network | CachedTeacher | None,
        group: Group,
        backup: Backup | None,
    ) -> None:
        self.cohort = cohort
        self.data = data
        self.backup = backup
        recipe = cohort.members[0].recipe
        self.teaching = None if teacher is None else Teaching(teacher, recipe, data, group)
        self.group = group
        self.steps = Steps(recipe, group)
        self.batch_size = recipe.batch_size
        self.augmentation = Augmentation(data.augmentation, data.image_size)
        self._check_batch_size()
        self.students: list[Student] = []
        self.refused: dict[str, str] = {}
        self.stopped: dict[str, str] = {}
        self.told: dict[str, int] = {}
        self.safe: dict[str, int] = {}
        self.before_save: Callable[[], None] = lambda: None
        for member in cohort.members:
            self._add(member)
        if self.teaching is not None:
            self.teaching.keep(union_of_needs(self.students))
        self._apply_time_limit()

    def run(self) -> Iterator[list[Progress]]:
        """Yields each trial's progress: once at the start, then after every epoch."""
        try:
            yield self.report()
            while active := self.active():
                healthy = self.train_epoch(active)
                yield from self.save(healthy)
                yield self.report()
            if self.backup is not None:
                self.settle()
                yield self.report()
        finally:
            if self.teaching is not None:
                self.teaching.close()

    def _add(self, member: Member) -> None:
        try:
            student = Student(
                member,
                self.cohort.model,
                seed=self.cohort.seed,
                epochs=self.cohort.epochs,
                num_classes=self.data.num_classes,
                image_size=self.data.image_size,
                teacher=None if self.teaching is None else self.teaching.network_for(member),
                train_labels=self.data.train.labels,
                group=self.group,
            )
        except UserError as error:
            # A configuration that this pair cannot serve is that trial's failure, not the cohort's.
            self.refused[member.name] = str(error)
            return
        if self.group.rank == 0:
            delete_drafts(member.folder)
        if self.backup is not None and self.group.rank == 0:
            self.backup.find_checkpoint(member.folder, member.told)
        student.resume()
        self.safe[member.name] = student.epoch
        self.students.append(student)

    def _check_batch_size(self) -> None:
        if self.batch_size > len(self.data.train):
            raise UserError(
                f"recipe.batch_size must be at most the number of training images "
                f"({len(self.data.train)}), but got {self.batch_size}"
            )
        if self.batch_size % self.group.size:
            raise UserError(
                f"recipe.batch_size must be a multiple of resources.workers ({self.group.size}), "
                f"but got {self.batch_size}"
            )

    def active(self) -> list[Student]:
        """Returns the students to train next: those at the earliest epoch."""
        going = self._going()
        first = min((student.epoch for student in going), default=0)
        return [student for student in going if student.epoch == first]

    def _going(self) -> list[Student]:
        """Returns the students that train on in this leg."""
        until = self.cohort.until or self.cohort.epochs
        return [
            student
            for student in self.students
            if not student.finished
            and student.epoch < until
            and student.member.name not in self.stopped
        ]

    def train_epoch(self, students: list[Student]) -> list[Student]:
        """Trains an epoch, and returns those that came to its end."""
        started = time.perf_counter()
        for student in students:
            student.start_epoch()
        epoch = students[0].epoch + 1
        needs = union_of_needs(students)
        two_views = any(student.second_view for student in students)
        order = epoch_order(len(self.data.train), self.cohort.seed, epoch)
        steps = len(order) // self.batch_size
        for number in range(steps):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            lesson = self._prepare(self.group.share(batch), epoch, number, needs, two_views)
            self.steps.take([s for s in students if not s.failure], lesson)
        rows = end_epoch([s for s in students if not s.failure], steps, self.group)
        healthy = [student for student in students if not student.failure]
        seconds = self.group.agree(time.perf_counter() - started) / len(students)
        scores = evaluate([s.network for s in healthy], self.data.validation, self.data, self.group)
        for student, score in zip(healthy, scores, strict=True):
            if not self.is_finite(student, score):
                continue
            row = rows[student.member.name]
            row |= {"val_accuracy": score.accuracy, "val_loss": score.loss}
            student.history.append(row)
            student.seconds += seconds
        if self.teaching is not None:
            self.teaching.end_epoch()
        self._apply_time_limit()
        return [student for student in healthy if not student.failure]

    def is_finite(self, student: Student, score: Score) -> bool:
        """Returns whether a student can be used; if not, that is its trial's failure."""
        if math.isfinite(score.loss):
            return True
        student.failure = f"diverged at epoch {student.epoch} (val_loss is not finite)"
        return False

    def save(self, students: list[Student]) -> Iterator[list[Progress]]:
        """Saves what an epoch has trained; yields what it waits for while the disk is full."""
        if self.backup is not None:
            self.settle()  # at most one epoch is on its way
        for why in save_all(students, self._save, self.group):
            if self.backup is not None:
                self.backup.make_room([member.folder for member in self.cohort.members])
            told = f"{why}; training waits, and goes on when there is room" if why else ""
            yield [Progress(s.member.name, "running", (), told, s.seconds) for s in students]
        if self.backup is None:
            self._all_is_safe()

    def _save(self, student: Student) -> None:
        self.before_save()
        # The checkpoint comes last: a restart takes a trial that has its last one for done.
        if student.epoch >= self.cohort.epochs:
            student.save_network(self.cohort.model, self.data.num_classes)
        student.save()
        if self.backup is not None and self.group.rank == 0:
            self.backup.save_trial(student.member.folder, student.epoch)

    def settle(self) -> None:
        """Waits until the last epoch's checkpoints are uploaded, or cannot be for now."""
        assert self.backup is not None
        while not self.group.agree(float(self.backup.settle(_BEAT_SECONDS))):
            pass  # no worker waits for worker 0 longer than this
        self._all_is_safe()

    def _all_is_safe(self) -> None:
        self.safe = {student.member.name: student.saved for student in self.students}

    def _prepare(
        self,
        indices: Tensor,
        epoch: int,
        number: int,
        needs: frozenset[Need],
        two_views: bool,
    ) -> Lesson:
        device = self.group.device
        raw = self.data.train.gather(indices)
        codes = self.augmentation.views(self.cohort.seed, epoch, indices)
        images = self.augmentation.apply(
            to_device(raw, device), to_device(codes, device), to_device(indices, device)
        )
        images = self._normalised(images)
        images_2 = None
        if two_views:
            images_2 = self._second_view(raw, epoch, indices)
        return Lesson(
            images,
            self._teach(images, indices, codes, needs),
            to_device(self.data.train.labels[indices], device),
            to_device(indices, device),
            images_2,
            None if images_2 is None else self._teach_live(images_2, needs),
            number,
        )

    def _second_view(self, raw: Tensor, epoch: int, indices: Tensor) -> Tensor:
        strong = strong_views(raw, self.augmentation, self.cohort.seed, epoch, indices)
        return self._normalised(to_device(strong, self.group.device))

    def _normalised(self, images: Tensor) -> Tensor:
        images = normalise(images, self.data.mean, self.data.std)
        if self.cohort.members[0].recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def _teach(
        self, images: Tensor, indices: Tensor, codes: Tensor, needs: frozenset[Need]
    ) -> Outputs | None:
        if not needs or self.teaching is None:
            return None
        return self.teaching.teach(images, indices, codes, needs)

    def _teach_live(self, images: Tensor, needs: frozenset[Need]) -> Outputs | None:
        if not needs or self.teaching is None:
            return None
        return self.teaching.teach_unkept(images, needs)

    def _apply_time_limit(self) -> None:
        limit = self.cohort.per_trial_seconds
        for student in self.students:
            if limit is not None and student.seconds >= limit and not student.finished:
                reason = f"budget.per_trial_seconds reached after epoch {student.epoch}"
                self.stopped.setdefault(student.member.name, reason)

    def report(self) -> list[Progress]:
        progress = [Progress(name, "failed", (), why) for name, why in self.refused.items()]
        for student in self.students:
            name = student.member.name
            rows = tuple(student.history[self.told.get(name, 0) : self.safe[name]])
            self.told[name] = self.safe[name]
            status, reason = self._status(student)
            progress.append(Progress(name, status, rows, reason, student.seconds))
        return progress

    def _status(self, student: Student) -> tuple[Status, str]:
        if self.safe[student.member.name] < len(student.history):
            return "running", self._away
        if student.failure:
            return "failed", student.failure
        if student.finished:
            return "done", ""
        if student.member.name in self.stopped:
            return "stopped", self.stopped[student.member.name]
        return "running", self._away

    @property
    def _away(self) -> str:
        return "" if self.backup is None else self.backup.problem
