"""The training loop where budgets are seconds: each trial stops by its own clock.

An epoch of a timed trial is a slice of its budget: 1/epochs of its seconds, however many images
that is. So schedules, rungs and metrics mean the same part of the training for every method, and
whoever reads a trial's epochs need not know. Where the data stands is counted in steps instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kdscale.data import TaskData, epoch_order
from kdscale.models import Network
from kdscale.outputs import Need, Outputs
from kdscale.training._backup import Backup
from kdscale.training._clock import Clock, device_clock, from_bytes, to_bytes
from kdscale.training._cohort import Cohort, CohortLoop, Progress
from kdscale.training._evaluate import evaluate
from kdscale.training._executor import Steps
from kdscale.training._group import Group
from kdscale.training._student import Student, end_epoch, union_of_needs
from kdscale.training._teach import CachedTeacher


def train_timed_cohort(
    cohort: Cohort,
    data: TaskData,
    teacher: Network | CachedTeacher | None,
    group: Group,
    backup: Backup | None = None,
    before_save: Callable[[], None] = lambda: None,
    clock: Clock | None = None,
) -> Iterator[list[Progress]]:
    """Yields each trial's progress as `train_cohort` does, where members have a budget in seconds.

    A trial's seconds are its training compute, see `kdscale.training._clock.Account`. It stops at
    the step that ends nearest to its budget. Members share batches and the teacher's passes as
    long as they stand at the same step; one whose budget is spent leaves the others. Members that
    have come further, before a restart, wait for the others.

    Seconds are measured, so no two runs have the same steps, nor the same bits.

    Args:
        cohort: What to train; each member with its ``seconds``.
        data: Training and validation images.
        teacher: The live teacher on the group's device; None if no member has a method.
        group: The workers. The first one's clock decides for all.
        backup: Where checkpoints and students go as well; None for the study folder alone.
        before_save: Called before each checkpoint is written.
        clock: Tells the time; default: the process's clock, the device waited for.

    Raises:
        UserError: If the batch size does not fit the data or the workers.
    """
    loop = _TimedLoop(cohort, data, teacher, group, backup)
    loop.before_save = before_save
    loop.clock = clock or device_clock(group.device)
    yield from loop.run()


class _TimedLoop(CohortLoop):
    def __init__(
        self,
        cohort: Cohort,
        data: TaskData,
        teacher: Network | CachedTeacher | None,
        group: Group,
        backup: Backup | None,
    ) -> None:
        super().__init__(cohort, data, teacher, group, backup)
        self.clock: Clock = device_clock(group.device)
        self._steps_an_epoch = len(data.train) // self.batch_size
        self._order = (0, torch.empty(0))
        self._parts: dict[str, float] = {}
        # One student a time: what is on its way for two has no time of its own.
        recipe = cohort.members[0].recipe.model_copy(update={"executor": "loop"})
        self._own_steps = {s.member.name: Steps(recipe, group) for s in self.students}
        self._slice_steps: dict[str, int] = {}
        self._first_seconds: dict[str, float | None] = {s.member.name: None for s in self.students}

    def active(self) -> list[Student]:
        """Returns the students to train next: those at the earliest step."""
        going = self._going()
        first = min((student.account.steps for student in going), default=0)
        return [student for student in going if student.account.steps == first]

    def train_epoch(self, students: list[Student]) -> list[Student]:
        """Trains until a slice ends or others can join; returns those at their slice's end."""
        if passed := self._pass_slices(students):
            return passed
        for student in students:
            if student.member.name not in self._slice_steps:
                student.start_epoch()
                self._slice_steps[student.member.name] = 0
        position = students[0].account.steps
        further = [s.account.steps for s in self._going() if s.account.steps > position]
        end = min(further, default=math.inf)
        while True:
            for _ in range(self._steps_unwatched(students, end - position)):
                self._step([s for s in students if not s.failure], position)
                position += 1
            self._take_first_workers_clock(students)
            failed = any(student.failure for student in students)
            ended = [s for s in students if not s.failure and s.account.reaches(self._goal(s))]
            if ended or failed or position >= end:
                return self._end_slices(ended)

    def save(self, students: list[Student]) -> Iterator[list[Progress]]:
        """Saves those whose slice has ended, while the others wait."""
        if not students:
            return
        before = self.clock()
        yield from super().save(students)
        paused = self.clock() - before
        for student in self._going():
            student.account.paused_seconds += paused

    def _goal(self, student: Student) -> float:
        """Returns the seconds at which the student's slice ends."""
        assert student.member.seconds is not None
        return student.member.seconds * (student.epoch + 1) / self.cohort.epochs

    def _steps_unwatched(self, students: list[Student], most: float) -> int:
        if self.group.size == 1:
            return 1
        # The workers agree on what the clock says, which costs a message.
        return int(min(most, *(s.account.steps_unwatched(self._goal(s)) for s in students)))

    def _take_first_workers_clock(self, students: list[Student]) -> None:
        if self.group.size == 1:
            return
        accounts = {student.member.name: student.account for student in students}
        content = self.group.hand_out(to_bytes(accounts) if self.group.rank == 0 else None)
        assert content is not None
        agreed = from_bytes(content)
        for student in students:
            student.account = agreed[student.member.name]

    def _step(self, students: list[Student], position: int) -> None:
        """Trains on the batch of a step, and charges every student for it."""
        epoch, number = divmod(position, self._steps_an_epoch)
        if self._order[0] != epoch + 1:
            self._order = epoch + 1, epoch_order(len(self.data.train), self.cohort.seed, epoch + 1)
        batch = self._order[1][number * self.batch_size : (number + 1) * self.batch_size]
        started = self.clock()
        self._parts = dict.fromkeys(("teacher", "teacher_2", "data_2"), 0.0)
        lesson = self._prepare(
            self.group.share(batch),
            epoch + 1,
            position,
            union_of_needs(students),
            any(student.second_view for student in students),
        )
        parts = self._parts
        data = self.clock() - started - sum(parts.values())
        for student in students:
            started = self.clock()
            self._own_steps[student.member.name].take([student], lesson)
            own = self.clock() - started
            taught = parts["teacher"] if student.needs else 0.0
            second = student.second_view
            taught += parts["teacher_2"] if second and student.needs else 0.0
            self._charge(student, own, taught, data + (parts["data_2"] if second else 0.0))

    def _charge(self, student: Student, own: float, teacher: float, data: float) -> None:
        """Charges a step; an attempt's first one, which sets things up, at the second's price."""
        name, account = student.member.name, student.account
        account.steps += 1
        self._slice_steps[name] += 1
        if name not in self._first_seconds:
            account.charge(own, teacher, data)
            return
        first = self._first_seconds[name]
        if first is None:
            self._first_seconds[name] = own + teacher + data
            return
        account.charge(own, teacher, data, steps=2)
        account.setup_seconds += max(0.0, first - (own + teacher + data))
        del self._first_seconds[name]

    def _end_slices(self, students: list[Student]) -> list[Student]:
        """Evaluates students at their slice's end, and returns those that are sound."""
        rows: dict[str, dict[str, float]] = {}
        for student in students:
            steps = self._slice_steps.pop(student.member.name)
            rows |= end_epoch([student], steps, self.group)
        healthy = [student for student in students if not student.failure]
        started = self.clock()
        scores = evaluate([s.network for s in healthy], self.data.validation, self.data, self.group)
        seconds = (self.clock() - started) / max(1, len(healthy))
        for student, score in zip(healthy, scores, strict=True):
            if not self.is_finite(student, score):
                continue
            account = student.account
            account.evaluation_seconds += seconds
            student.seconds = account.compute_seconds
            row = rows[student.member.name] | account.metrics(self._steps_an_epoch)
            row |= {"val_accuracy": score.accuracy, "val_loss": score.loss}
            student.history.append(row)
        return [student for student in healthy if not student.failure]

    def _pass_slices(self, students: list[Student]) -> list[Student]:
        """Returns those whose last step went beyond another slice, with that slice counted."""
        passed = [
            student
            for student in students
            if student.history
            and student.member.name not in self._slice_steps
            and student.account.reaches(self._goal(student))
        ]
        for student in passed:
            student.epoch += 1
            student.history.append({**student.history[-1], "epoch": student.epoch})
        return passed

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = self.clock()
        yield
        self._parts[part] = self.clock() - started

    def _teach(
        self, images: Tensor, indices: Tensor, codes: Tensor, needs: frozenset[Need]
    ) -> Outputs | None:
        with self._timed("teacher"):
            return super()._teach(images, indices, codes, needs)

    def _teach_live(self, images: Tensor, needs: frozenset[Need]) -> Outputs | None:
        with self._timed("teacher_2"):
            return super()._teach_live(images, needs)

    def _second_view(self, raw: Tensor, epoch: int, indices: Tensor) -> Tensor:
        with self._timed("data_2"):
            return super()._second_view(raw, epoch, indices)
