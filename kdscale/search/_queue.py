"""What to train next: cohorts handed out one by one, from the ledger and back to it.

Knows nothing of Ray: the searcher that Ray Tune asks is a few lines around this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kdscale.errors import UserError
from kdscale.records import TrialRecord, Value
from kdscale.search._ask import ask_generation
from kdscale.search._attempts import Loss
from kdscale.search._cohort_job import Job
from kdscale.search._cohort_lease import Leases
from kdscale.search._cohort_size import FEWEST_MEASURED, CohortSize, chosen_size, planned_size
from kdscale.search._ledger import Ledger
from kdscale.search._packing import Place, Waiting, next_cohort
from kdscale.search._plan import (
    MODEL_BASED,
    controls,
    generations,
    most_together,
    next_boundary,
    over_budget,
)
from kdscale.search._propose import Proposal
from kdscale.search._racing import SeedRace
from kdscale.search._rungs import RungGroup, rung_groups
from kdscale.search._served import DatabaseAwayError
from kdscale.training import Measured, Progress


class CohortQueue:
    """Hands out cohorts, takes their progress, and knows when the study is complete.

    A cohort trains from one rung to the next. There its trials part: those that their rung group
    keeps are packed together again with whoever stands at the same epoch under the same seed. Who
    is kept depends on the group's histories alone, so neither the size of cohorts nor the number
    of lanes nor who ended first changes what a study finds.

    Model-based searches plan a generation when every trial of the one before has ended. Designs
    plan everything at once. Where seeds are raced, a trial waits until its race asks for it.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        on_change: Callable[[TrialRecord], None] = lambda trial: None,
        on_size: Callable[[CohortSize], None] = lambda size: None,
        leases: Leases | None = None,
    ) -> None:
        """Plans what is missing.

        Args:
            ledger: The study's record.
            on_change: Called with every trial that has changed.
            on_size: Called with how many trials train together, when that is known or changes.
            leases: Who knows whether a cohort that was lost from sight can train no more; its
                trials wait until then. Without it they do not.

        Raises:
            UserError: If that cannot be written.
        """
        self.ledger = ledger
        self.on_change = on_change
        self.on_size = on_size
        self._leases = leases
        self.stopped = ""
        self.refused = ""
        self._away = False
        """Whether the study's database has been given up: nothing more is written."""
        self._lanes: int | None = None
        self._size = planned_size(ledger.study, ledger.cohort_size())
        self._measured: list[Measured] = []
        self._memory_bytes = 0
        self._guessed = False
        """Whether the size stands for this sweep alone, since its measurement crashed."""
        self._max_failures = ledger.study.resources.max_failures
        self._failures: dict[str, int] = {}
        self._losses: dict[str, Loss] = {}
        self._unseen: dict[str, list[str]] = {}
        """Cohorts lost from sight, with the trials that may still be training there."""
        self._changed: list[TrialRecord] = []
        self._running: dict[str, Job] = {}
        self._busy: set[str] = set()
        """Trials in a running cohort."""
        self._waiting: dict[Place, list[str]] = {}
        self._settled: set[str] = set()
        """Trials that wait for a cohort."""
        self._groups: dict[str, RungGroup] = {}
        self._races: dict[str, SeedRace] = {}
        """By trial, the race that it is in."""
        self._began: set[str] = set()
        """Trials whose present attempt has been counted."""
        self._left: set[str] = set()
        """Searched trials that are planned and have not ended."""
        self._controls_left: set[str] = set()
        self._seconds = {t.name: t.train_seconds for t in (*ledger.trials, *ledger.controls)}
        self._all_seconds = sum(self._seconds.values())
        self._handed_out = 0
        self._planned = 0
        """Generations that are planned."""
        with self._written():
            self._plan()
            self._plan_controls()

    @property
    def complete(self) -> bool:
        """Whether every planned trial has ended."""
        left = self._left or self._controls_left
        return not left and self._planned == generations(self.ledger.study)

    @property
    def idle(self) -> bool:
        """Whether nothing runs, and nothing is left to hand out."""
        return not self._running and (self._closed or not (self._waiting or self._unseen))

    @property
    def wanted(self) -> int:
        """How many cohorts there are to train at once; may be asked for from any thread."""
        size = self._size.size
        if self._closed or not size:  # nothing more begins, or not before it is measured
            return len(self._running)
        waiting = [len(names) for names in list(self._waiting.values())]
        return len(self._running) + sum(-(-count // size) for count in waiting)

    def open(self, lanes: int, resources: str = "") -> None:
        """Says with what the study trains in this sweep.

        Args:
            lanes: Cohorts that train at once.
            resources: What they train with: what was measured with others is measured again.
        """
        self.resize(lanes)
        self._size = planned_size(self.ledger.study, self.ledger.cohort_size(), resources)
        if self._size.size:
            self.on_size(self._size)

    def resize(self, lanes: int) -> None:
        """Says how many cohorts the cluster has room for now; may be called from any thread."""
        self._lanes = lanes

    def next(self) -> Job | None:
        """Returns the next cohort to train; None if there is none until another one ends.

        Nor is there one while as many train as the cluster has room for.
        """
        if self._closed:
            return None
        for cohort in list(self._unseen):
            if self._leases is None or self._leases.has_stopped(cohort):
                for name in self._unseen.pop(cohort):
                    self._settle(self.ledger.trial(name))
        if not self._left:
            with self._batch():
                self._plan()
        if self._closed or not self._waiting or any(job.measure for job in self._running.values()):
            return None
        if self._lanes is not None and len(self._running) >= self._lanes:
            return None
        if over_budget(self.ledger.study, self._all_seconds):
            self.stopped = "budget.gpu_hours is used up"
            return None
        return self._begin()

    def report(self, report: Mapping[str, Any]) -> None:
        """Records what a running cohort tells."""
        if self._away:
            return  # what it has trained is in checkpoints
        if "refused" in report:
            # Data, teacher or recipe cannot be used: no other cohort would fare better.
            self.refused = self.refused or report["refused"]
        elif "crashed" in report:
            detail = report["crashed"].strip().splitlines()[-1]
            self._losses[report["cohort"]] = Loss(report.get("reason", "worker crash"), detail)
        elif "measured" in report:
            self._measured += [Measured(**row) for row in report["measured"]]
            self._memory_bytes = report["memory_bytes"]
        else:
            with self._batch():
                for part in report["progress"]:
                    if not self.ledger.trial(part["name"]).has_ended:  # else it is old news
                        progress = Progress(**part)
                        self._change(self.ledger.progress(progress, report.get("node", "")))

    def finished(self, cohort: str, loss: Loss | None = None) -> None:
        """Takes a cohort back: at its end, or to be tried again, or given up.

        What a crashed cohort has in checkpoints is not lost: the next attempt goes on from there.

        Args:
            cohort: The cohort.
            loss: Why its process died without a word, if it did.
        """
        job, told = self._running.pop(cohort), self._losses.pop(cohort, loss)
        if self._away:
            return
        with self._batch():
            if job.measure:
                self._end_measurement(told)
            else:
                silent = Loss("worker crash", "the worker stopped before its trials ended")
                self._take_back(job, told or silent)

    def end_attempts(self) -> None:
        """Ends the attempts of trials that this sweep leaves unfinished, if they can be written."""
        if self._away:
            return  # the next sweep finds them without an end
        with self._batch():
            if self.refused:
                self.ledger.end_attempts("bad configuration", self.refused)
            else:
                self.ledger.end_attempts("user stop", self.stopped)

    def _begin(self) -> Job | None:
        """Returns the next cohort, or None if its beginning cannot be written."""
        with self._batch():
            job = self._cohort() if self._size.size else self._measurement()
        if self._closed:
            return None
        self._running[job.cohort] = job
        return job

    def _take_back(self, job: Job, loss: Loss) -> None:
        self._busy.difference_update(job.members)
        going = [name for name in job.members if not self.ledger.trial(name).has_ended]
        unfinished = [n for n in going if len(self.ledger.trial(n).history) < job.until]
        for name in going:
            if self.refused or name not in unfinished:
                self._change(self.ledger.leave(name))
            else:
                self._change(self.ledger.leave(name, loss.reason, loss.detail))
        if self.refused:
            return
        self._count_failures(job, unfinished, loss)
        if unfinished and not loss.is_certain:
            self._unseen[job.cohort] = unfinished
        elif self._leases is not None:
            self._leases.forget(job.cohort)
        for name in going:
            if loss.is_certain or name not in unfinished:
                self._settle(self.ledger.trial(name))

    @contextmanager
    def _batch(self) -> Iterator[None]:
        """Makes one transaction of its block, or ends the sweep with why there can be none.

        Ray Tune calls the queue, and would make a traceback of each error.
        """
        try:
            with self._written():
                yield
        except UserError as error:
            self.refused = str(error)
            self._away = self._away or isinstance(error, DatabaseAwayError)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Makes one transaction of its block, and tells of its changes when they are written."""
        with self.ledger.batch():  # if it raises, what is not written is not told either
            yield
        changed, self._changed = self._changed, []
        for trial in changed:
            self.on_change(trial)

    @property
    def _closed(self) -> bool:
        return bool(self.stopped or self.refused)

    def _cohort(self) -> Job:
        """Takes the next cohort out of those that wait."""
        study, ledger = self.ledger.study, self.ledger
        place, count = next_cohort(
            {place: self._count(names) for place, names in self._waiting.items()},
            size=self._size.size,
            lanes=max(1, (self._lanes or 1) - len(self._running)),
            epochs=study.budget.epochs,
        )
        names = self._waiting[place][:count]
        del self._waiting[place][:count]
        if not self._waiting[place]:
            del self._waiting[place]
        self._handed_out += 1
        cohort = f"s{place.seed}-{self._handed_out}"
        self._busy.update(names)
        for name in names:
            self._settled.discard(name)
            self._change(ledger.begin(name, cohort, attempt=name not in self._began))
            self._began.add(name)
        members = {name: self._values(name) for name in names}
        distils = any(values is not None for values in members.values())
        until = next_boundary(study, place.epoch) if distils else study.budget.epochs
        return Job(cohort, place.seed, members, until, told=place.epoch)

    def _count(self, names: list[str]) -> Waiting:
        controls = int(self.ledger.trial(names[-1]).is_control)  # one a seed, and the last one
        return Waiting(len(names) - controls, controls)

    def _values(self, name: str) -> Mapping[str, Value] | None:
        trial = self.ledger.trial(name)
        return None if trial.is_control else trial.parameters

    def _settle(self, trial: TrialRecord) -> None:
        """Lets a trial wait for its next cohort, unless it has ended or waits for others."""
        group, race = self._groups.get(trial.group), self._races.get(trial.name)
        epoch = len(trial.history)
        if race is not None and trial.name not in race.going:
            return
        if trial.has_ended or trial.name in self._busy or trial.name in self._settled:
            return
        if group is not None and epoch >= group.limit:
            return
        self._settled.add(trial.name)
        failures = self._failures.get(trial.name, 0)
        # The last attempt is made alone, so that a trial that breaks cohorts fails alone.
        alone = trial.name if failures and failures == self._max_failures else ""
        names = self._waiting.setdefault(Place(trial.seed, epoch, alone), [])
        before_control = bool(names) and self.ledger.trial(names[-1]).is_control
        names.insert(len(names) - before_control, trial.name)

    def _change(self, trial: TrialRecord) -> None:
        """Takes a trial that has changed, and what that means for others of its race and group."""
        self._all_seconds += trial.train_seconds - self._seconds.get(trial.name, 0.0)
        self._seconds[trial.name] = trial.train_seconds
        if trial.has_ended:
            self._left.discard(trial.name)
            self._controls_left.discard(trial.name)
        self._changed.append(trial)
        race = self._races.get(trial.name)
        if race is not None:
            race.update(trial)
            if trial.has_ended and not trial.is_raced_out:
                self._go_on(race)
        group = self._groups.get(trial.group)
        if group is None:
            return
        limit = group.limit
        group.update(trial)
        self._drop(group)
        if group.limit != limit:
            for name in group.names:
                self._settle(self.ledger.trial(name))

    def _drop(self, rule: RungGroup | SeedRace) -> None:
        for name, reason in rule.decide().items():
            self._change(self.ledger.end(name, "pruned", reason))

    def _go_on(self, race: SeedRace) -> None:
        """Takes a race to its next step, if it has ended one."""
        if race.going:
            return
        self._drop(race)
        for name in sorted(race.going, key=lambda name: self.ledger.trial(name).number):
            self._settle(self.ledger.trial(name))

    def _count_failures(self, job: Job, unfinished: Sequence[str], loss: Loss) -> None:
        """Counts a crash for the trials that did not come to the end of their leg."""
        for name in job.members:
            if name not in unfinished:
                self._failures.pop(name, None)
        self._began.difference_update(unfinished)
        if not loss.counts:
            return
        if unfinished and loss.reason == "out of memory" and len(job.members) > 1:
            # Too many together: no trial's fault, as long as it was not alone.
            why = f"memory ran out with {len(job.members)} ({loss.detail})"
            size = min(self._size.size, len(job.members) // 2)
            self._set_size(replace(self._size, size=size, why=why))
            return
        for name in unfinished:
            count = self._failures[name] = self._failures.get(name, 0) + 1
            if count > self._max_failures:
                why = f"failed {count} times: {loss.detail}"
                self._change(self.ledger.end(name, "failed", why))

    def _set_size(self, size: CohortSize) -> None:
        self._size = size
        if self.ledger.study.resources.cohort == "auto" and not self._guessed:
            self.ledger.save_cohort_size(size)
        self.on_size(size)

    def _measurement(self) -> Job:
        """Returns a job that measures how large cohorts should be, with trials that wait."""
        place = max(self._waiting, key=lambda place: len(self._waiting[place]))
        names = self._waiting[place][: most_together(self.ledger.study)]
        self._measured, self._memory_bytes = [], 0
        members = {name: self._values(name) for name in names}
        return Job(f"s{place.seed}-measured", place.seed, members, 0, measure=True)

    def _end_measurement(self, loss: Loss | None) -> None:
        """Takes the size that was measured; a lost machine says nothing: it is measured again."""
        if self.refused:
            return
        table = sorted({row.size: row for row in self._measured}.values(), key=lambda row: row.size)
        most, crash = most_together(self.ledger.study), ""
        if loss is not None and loss.reason == "out of memory":
            most = table[-1].size if table else 1
        elif loss is not None and len(table) < FEWEST_MEASURED:
            if not loss.counts:
                return
            self._guessed, crash = True, loss.detail
        self._set_size(chosen_size(table, most, self._memory_bytes, self._size.resources, crash))

    def _plan(self) -> None:
        """Plans trials as far as the search can know them, and lets them wait for cohorts."""
        study = self.ledger.study
        learns = study.search.method in MODEL_BASED
        together: list[TrialRecord] = []
        while self._planned < generations(study):
            trials, new = ask_generation(self.ledger, self._planned)
            self._changed += new
            self._planned += 1
            self._left.update(trial.name for trial in trials if not trial.has_ended)
            together += trials
            groups = rung_groups(study, trials)
            self._groups |= groups
            for group in groups.values():
                self._drop(group)
            if learns or self._planned == generations(study):
                self._start(together)
                together = []
            if learns and self._left:
                break

    def _start(self, trials: Sequence[TrialRecord]) -> None:
        """Lets trials wait for cohorts: all at once, or as their race asks for them."""
        names = [trial.name for trial in trials]
        if self.ledger.study.tolerance is not None:
            earlier, members = map(self.ledger.trial, self._races), map(self.ledger.trial, names)
            race = SeedRace(self.ledger.study, members, earlier)
            self._races.update(dict.fromkeys(names, race))
            self._go_on(race)
        for name in names:
            self._settle(self.ledger.trial(name))

    def _plan_controls(self) -> None:
        for planned in controls(self.ledger.study):
            trial = self.ledger.find(planned.name) or self.ledger.add(planned, Proposal({}))
            if not trial.has_ended:
                self._controls_left.add(trial.name)
                self._settle(trial)
