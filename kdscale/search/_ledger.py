"""The durable record of a study: Optuna's storage, and nothing beside it.

Every trial is an Optuna trial from the moment it is planned. Creating those of a plan with all of
their attributes is a single transaction, and so is all that a cohort's report changes; of what ends
a trial the state is written last. So a crash at any point leaves a record that the next sweep
continues. A trial that waits at a rung has all of its metrics here, since no worker may ever tell
them again. One process writes at a time: a lock and a lease see to it.

An attempt is written when it begins and when it ends. One without an end, in a study that no sweep
holds, is its driver's that was lost; the trial's next attempt says so.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdscale.errors import UserError
from kdscale.records import (
    AttemptReason,
    FinalEvaluation,
    StudyRecord,
    TrialRecord,
)
from kdscale.records import TrialState as RecordState
from kdscale.search._attempts import (
    begun,
    ended,
    from_text,
    reason_of_end,
    seen_on,
    to_text,
)
from kdscale.search._cohort_size import CohortSize
from kdscale.search._heartbeat import Heartbeat
from kdscale.search._plan import CONTROL, PlannedTrial, rung_group
from kdscale.search._propose import Proposal
from kdscale.search._reads import all_trials, final_of
from kdscale.search._remarks import clock_remark, crops_remark, form_remark
from kdscale.search._storage import (
    DATABASE,
    find_study,
    forget_if_untrained,
    open_storage,
    open_studies,
)
from kdscale.search._study import Study
from kdscale.search._value import trial_value
from kdscale.search._warm import warmed
from kdscale.search._writes import Guard, Key, Writes
from kdscale.training import FormChoice, Progress, teacher_path

_ENDED: dict[RecordState, TrialState] = {
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_RECORDED = {state: name for name, state in _ENDED.items()}


class Ledger:
    """A study's trials in Optuna's storage: searched ones in one Optuna study, controls in another.

    Controls are kept apart because they have no parameters: one trial without them would leave
    Optuna's samplers and plots no common search space.
    """

    def __init__(self, study: Study, storage: BaseStorage, *, create: bool = True) -> None:
        """Reads the record; one that does not create writes nothing, whatever is missing."""
        self.study = study
        self._storage = storage
        self._ids = open_studies(storage, study, create=create)
        self._parameters = tuple(axis.name for axis in study.axes)
        self._counts = {False: 0, True: 0}
        self._trials: dict[str, TrialRecord] = {}
        self._saved_epochs: dict[str, int] = {}
        self._writes = Writes(storage)
        self._open_batches = 0
        self._lost_at = ""
        self._memories: dict[int, Mapping[str, Any]] = {}
        for control, study_id in self._ids.items():
            for frozen in all_trials(storage, study_id):
                self._writes.knows((study_id, frozen.number), frozen._trial_id)
                self._learn(frozen, control=control)

    @property
    def teacher(self) -> Path | None:
        """The study's one file of the teacher, if a sweep has prepared it."""
        name = self._storage.get_study_user_attrs(self._ids[False]).get("teacher")
        return teacher_path(self.study.folder, name) if name else None

    @property
    def trials(self) -> list[TrialRecord]:
        """The searched trials in order of their numbers."""
        found = [trial for trial in self._trials.values() if not trial.is_control]
        return sorted(found, key=lambda trial: trial.number)

    @property
    def controls(self) -> list[TrialRecord]:
        """The control trials in order of their numbers."""
        found = [trial for trial in self._trials.values() if trial.is_control]
        return sorted(found, key=lambda trial: trial.number)

    def trial(self, name: str) -> TrialRecord:
        """Returns a trial by name."""
        return self._trials[name]

    def find(self, name: str) -> TrialRecord | None:
        """Returns a trial by name, or None if it is not planned yet."""
        return self._trials.get(name)

    def by_configuration(self) -> list[list[TrialRecord]]:
        """Returns the searched trials of each configuration, in order of configurations."""
        found: defaultdict[int, list[TrialRecord]] = defaultdict(list)
        for trial in self.trials:
            if trial.configuration is not None:
                found[trial.configuration].append(trial)
        return [found[number] for number in sorted(found)]

    def memories(self) -> list[Mapping[str, Any]]:
        """Returns what the sampler remembered with each configuration."""
        return [self._memories.get(number, {}) for number in range(len(self.by_configuration()))]

    def add(self, planned: PlannedTrial, proposal: Proposal) -> TrialRecord:
        """Adds a trial with all of its attributes, and returns it."""
        attributes = {"seed": planned.seed}
        control = planned.configuration == CONTROL
        if not control:
            attributes["configuration"] = planned.configuration
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(proposal.parameters),
            distributions={} if control else self.study.distributions(),
            user_attrs=attributes,
            system_attrs=dict(proposal.memory),
        )
        template.number = self._counts[control]
        self._writes.create((self._ids[control], template.number), template)
        self._flush()
        return self._learn(template, control=control)

    def guard(self, guard: Guard | None, lost_at: str = "") -> None:
        """Takes what keeps this process from writing once another one has become the writer.

        Args:
            guard: Asked within each transaction that changes trials; None to write unguarded.
            lost_at: When the driver before this one was last seen, if it never said good-bye.
        """
        self._writes.guard = guard
        self._lost_at = lost_at

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Gathers all changes of trials within its block into one transaction at its end."""
        self._open_batches += 1
        try:
            yield
        finally:
            self._open_batches -= 1
        self._flush()

    def begin(self, name: str, cohort: str, *, attempt: bool) -> TrialRecord:
        """Puts a trial into a cohort, and returns it.

        Args:
            name: The trial.
            cohort: The cohort.
            attempt: Whether this is another attempt.
        """
        trial = replace(self._trials[name], state="running", cohort=cohort)
        if attempt:
            epoch = len(trial.history)
            attempts = begun(trial.attempts, trial.attempt, epoch, self._lost_at)
            trial = replace(trial, attempt=trial.attempt + 1, attempts=attempts)
        return self._keep(trial)

    def leave(
        self, name: str, reason: AttemptReason | None = None, detail: str = ""
    ) -> TrialRecord:
        """Takes a trial out of its cohort, and returns it.

        Args:
            name: The trial.
            reason: Why its attempt ended; None if it goes on in another cohort.
            detail: The same in a line.
        """
        trial = replace(self._trials[name], cohort="")
        if reason is not None:
            epoch = len(trial.history)
            trial = replace(trial, attempts=ended(trial.attempts, reason, epoch, detail))
        return self._keep(trial)

    def progress(self, progress: Progress, node: str = "") -> TrialRecord:
        """Records a trial's new epochs and how it ended, and returns the trial.

        Telling the same epochs twice changes nothing.

        Args:
            progress: What its cohort tells.
            node: Where that trains, if it is known.
        """
        trial = self._trials[progress.name]
        if trial.has_ended:
            return trial
        history = {int(row["epoch"]): row for row in trial.history}
        for row in progress.rows:
            epoch = int(row["epoch"])
            if epoch not in history:
                self._writes.epoch(self._key(trial), epoch, row[self.study.metric.name])
            history[epoch] = row
        rows = tuple(history[epoch] for epoch in sorted(history))
        trial = replace(trial, state="running", history=rows, train_seconds=progress.seconds)
        trial = replace(trial, reason=progress.reason)
        if node:
            trial = replace(trial, attempts=seen_on(trial.attempts, node))
        if len(rows) in self.study.rung_epochs:
            self._save_epochs(trial)
        with self.batch():
            self._keep(trial)
            match progress.status:
                case "done":
                    self.end(progress.name, "done", "", student=True)
                case "stopped":
                    self.end(progress.name, "pruned", progress.reason)
                case "failed" if progress.reason.startswith("diverged"):
                    # It says something about its configuration: a bad one, not a crash.
                    self.end(progress.name, "pruned", progress.reason)
                case "failed":
                    self.end(progress.name, "failed", progress.reason)
        return self._trials[progress.name]

    def end(
        self, name: str, state: RecordState, reason: str, *, student: bool = False
    ) -> TrialRecord:
        """Ends a trial and its attempt: the attributes first, its value and state last, told once.

        A diverged trial is pruned with the value that it had before. What a search makes of it is
        in `kdscale.search._propose`: the worst that there is.
        """
        trial = self._trials[name]
        if trial.has_ended:
            return trial
        why = reason_of_end(state, reason)
        value = trial_value(self.study.metric, trial.history) if state != "failed" else None
        trial = replace(
            trial,
            state=state,
            value=value,
            reason=reason,
            attempts=ended(trial.attempts, why, len(trial.history), reason),
            student=f"trials/{name}/student.pt" if student else None,
            cohort="",
        )
        key = self._key(trial)
        with self.batch():
            self._save_epochs(trial)
            if reason:
                self._writes.attribute(key, "reason", reason)
            if trial.student:
                self._writes.attribute(key, "student", trial.student)
            self._writes.end(key, _ENDED[state], value)
            return self._keep(trial)

    def end_attempts(self, reason: AttemptReason, detail: str = "") -> None:
        """Ends all attempts that go on, in one transaction: the sweep ends before its trials."""
        with self.batch():
            for name, trial in self._trials.items():
                if trial.attempts and not trial.has_ended:
                    self.leave(name, reason, detail)

    def save_teacher(self, content_hash: str) -> None:
        """Remembers the teacher by content hash, or refuses one that is not the study's.

        Raises:
            UserError: If earlier trials were distilled from another teacher.
        """
        known = self._storage.get_study_user_attrs(self._ids[False]).get("teacher")
        if known is not None and known != content_hash:
            raise UserError(
                f"{self.study.folder}: all trials of a study must have one teacher; the earlier "
                f"ones had {known[:16]}, but task.teacher is {content_hash[:16]} (use another "
                "name, or --fresh to start over)"
            )
        self._storage.set_study_user_attr(self._ids[False], "teacher", content_hash)

    @property
    def form(self) -> FormChoice | None:
        """The form in which the study's teacher teaches, once it is chosen."""
        saved = self._storage.get_study_user_attrs(self._ids[False]).get("teacher_form")
        return None if saved is None else FormChoice(**saved)

    def save_form(self, choice: FormChoice) -> None:
        """Remembers the teacher's form: all trials have one, however often the sweep starts."""
        self._storage.set_study_user_attr(self._ids[False], "teacher_form", asdict(choice))

    def save_final(self, final: FinalEvaluation) -> None:
        """Keeps the final evaluation."""
        self._storage.set_study_user_attr(self._ids[False], "final", json.dumps(asdict(final)))

    def cohort_size(self) -> CohortSize | None:
        """Returns how many trials train together, if a sweep has measured that."""
        text = self._storage.get_study_user_attrs(self._ids[False]).get("cohort_size")
        return CohortSize.from_json(text) if text else None

    def save_cohort_size(self, size: CohortSize) -> None:
        """Keeps how many trials train together."""
        self._storage.set_study_user_attr(self._ids[False], "cohort_size", size.to_json())

    def save_heartbeat(self, text: str) -> None:
        """Keeps the sweep's newest sign of life; may be called from any thread."""
        self._storage.set_study_user_attr(self._ids[False], "heartbeat", text)

    def heartbeat(self) -> Heartbeat | None:
        """Returns the newest sign of life of the study's last sweep, if one gave any."""
        text = self._storage.get_study_user_attrs(self._ids[False]).get("heartbeat")
        return Heartbeat.from_json(text) if text else None

    def record(self) -> StudyRecord:
        """Returns the study and all of its trials."""
        study = self.study
        attributes = self._storage.get_study_user_attrs(self._ids[False])
        return StudyRecord(
            name=study.name,
            folder=study.folder,
            metric=study.metric.name,
            goal=study.metric.goal,
            mode=study.metric.mode,
            epochs=study.budget.epochs,
            seeds=study.seed_list,
            rungs=study.rung_epochs,
            parameters=tuple(axis.name for axis in study.axes),
            study_file=study.to_yaml(place=False),
            trials=tuple(self.trials),
            controls=tuple(self.controls),
            final=final_of(attributes.get("final")),
            versions=attributes.get("versions", {}),
            commit=attributes.get("commit", ""),
            first=len(study.first),
            warm_start=study.search.warm_start.name if study.search.warm_start else "",
            teacher_note=study.task.teacher.cache.what_students_see,
            remarks=tuple(filter(None, self._remarks())),
            budget_seconds=study.budget.seconds,
        )

    def _remarks(self) -> tuple[str, ...]:
        study = self.study
        return crops_remark(study), clock_remark(study), form_remark(study, self.form)

    def _save_epochs(self, trial: TrialRecord) -> None:
        """Writes all of a trial's metrics."""
        key = self._key(trial)
        self._writes.attribute(key, "train_seconds", trial.train_seconds)
        if self._saved_epochs.get(trial.name) != len(trial.history):
            self._writes.attribute(key, "history", json.dumps(trial.history))
            self._saved_epochs[trial.name] = len(trial.history)

    def _keep(self, trial: TrialRecord) -> TrialRecord:
        """Takes a trial as it is now, and writes its attempts if they have changed."""
        if trial.attempts != self._trials[trial.name].attempts:
            self._writes.attribute(self._key(trial), "attempts", to_text(trial.attempts))
        self._trials[trial.name] = trial
        self._flush()
        return trial

    def _key(self, trial: TrialRecord) -> Key:
        return self._ids[trial.is_control], trial.number

    def _flush(self) -> None:
        if not self._open_batches:
            self._writes.flush()

    def _learn(self, frozen: FrozenTrial, *, control: bool) -> TrialRecord:
        attributes = frozen.user_attrs
        history = self._history(frozen)
        attempts = from_text(attributes.get("attempts", "[]"))
        # A study that an earlier version began has their number alone.
        attempt = attempts[-1].number if attempts else attributes.get("attempt", 0)
        state = _RECORDED.get(frozen.state, "running" if attempt else "waiting")
        trial = TrialRecord(
            number=frozen.number,
            configuration=None if control else attributes["configuration"],
            seed=attributes["seed"],
            parameters={} if control else {name: frozen.params[name] for name in self._parameters},
            state=state,
            value=trial_value(self.study.metric, history) if state != "failed" else None,
            history=history,
            group=""
            if control
            else rung_group(self.study, attributes["configuration"], attributes["seed"]),
            reason=attributes.get("reason", ""),
            attempt=attempt,
            attempts=attempts,
            train_seconds=attributes.get("train_seconds", 0.0),
            student=attributes.get("student"),
        )
        self._counts[control] = max(self._counts[control], trial.number + 1)
        self._trials[trial.name] = trial
        if trial.configuration is not None and frozen.system_attrs:
            self._memories[trial.configuration] = frozen.system_attrs
        return trial

    def _history(self, frozen: FrozenTrial) -> tuple[Mapping[str, float], ...]:
        """Returns a trial's epochs; of a trial in training, later ones have the metric alone."""
        whole = json.loads(frozen.user_attrs.get("history", "[]"))
        if frozen.state.is_finished():
            return tuple(whole)
        later = sorted((e, v) for e, v in frozen.intermediate_values.items() if e > len(whole))
        rows = [*whole, *({"epoch": e, self.study.metric.name: value} for e, value in later)]
        if later and len(rows) in self.study.rung_epochs:
            # Killed before the rest of the row was written: the worker has to tell it once more.
            rows.pop()
        return tuple(rows)


def open_ledger(study: Study, *, create: bool) -> Ledger:
    """Returns the study's ledger.

    Args:
        study: The study.
        create: Whether to start the study if there is none, and to record a raised budget; else
            nothing is written.

    Raises:
        UserError: If there is no such study, or the one there is another.
    """
    database = study.folder / DATABASE
    if study.storage.url is None and not database.exists() and not create:
        raise UserError(
            f"{study.folder}: there must be a study to read, but there is none "
            "(kdscale sweep makes it)"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # one line for each study it makes
    storage = open_storage(study)
    if find_study(storage, study.name) is None and not create:
        where = database if study.storage.url is None else "storage.url"
        raise UserError(f"{where}: must hold the study {study.name}, but has none")
    study = warmed(study, storage, begin=create)
    if create:
        forget_if_untrained(study, storage)
    return Ledger(study, storage, create=create)
