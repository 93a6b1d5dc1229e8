"""What to train next: cohorts handed out one by one, from the ledger and back to it.

Knows nothing of Ray: the searcher that Ray Tune asks is a few lines around this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from kdscale.records import TrialRecord
from kdscale.search._cohort_job import Job
from kdscale.search._designs import designed_configuration
from kdscale.search._ledger import Ledger
from kdscale.search._plan import controls, generation, generations
from kdscale.search._propose import Proposal, propose
from kdscale.training import Progress

_MODEL_BASED = ("tpe", "gp", "cmaes")
_SECONDS_AN_HOUR = 3600.0


class CohortQueue:
    """Hands out cohorts, takes their progress, and knows when the study is complete.

    Model-based searches plan a generation when every trial of the one before has ended, so that
    what they learn does not depend on who finished first. Designs plan everything at once.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        max_failures: int = 2,
        on_change: Callable[[TrialRecord], None] = lambda trial: None,
    ) -> None:
        """Plans what is missing.

        Args:
            ledger: The study's record.
            max_failures: How often a cohort whose worker crashed is tried again.
            on_change: Called with every trial that has changed.
        """
        self.ledger = ledger
        self.on_change = on_change
        self.stopped = ""
        self.refused = ""
        self._max_failures = max_failures
        self._failures: dict[str, int] = {}
        self._crashes: dict[str, str] = {}
        self._running: dict[str, Job] = {}
        self._waiting: deque[str] = deque()
        self._complete_generation_plans()

    @property
    def complete(self) -> bool:
        """Whether every planned trial has ended."""
        study = self.ledger.study
        planned = study.trials + len(controls(study))
        ended = [t for t in (*self.ledger.trials, *self.ledger.controls) if t.has_ended]
        return len(ended) >= planned

    @property
    def idle(self) -> bool:
        """Whether nothing runs, and nothing is left to hand out."""
        return not self._running and (self._closed or not self._waiting)

    def next(self) -> Job | None:
        """Returns the next cohort to train; None if there is none until another one ends."""
        if not self._waiting and not self._closed:
            self._complete_generation_plans()
        if self._closed or not self._waiting:
            return None
        if self._over_budget():
            self.stopped = "budget.gpu_hours is used up"
            return None
        cohort = self._waiting.popleft()
        trials = self.ledger.cohorts()[cohort]
        job = Job(
            cohort=cohort,
            seed=trials[0].seed,
            members={
                t.name: None if t.is_control else t.parameters for t in trials if not t.has_ended
            },
            ended={t.name: t.history for t in trials if t.has_ended},
        )
        self._running[cohort] = job
        self.ledger.begin(list(job.members))
        for name in job.members:
            self.on_change(self.ledger.trial(name))
        return job

    def report(self, report: Mapping[str, Any]) -> None:
        """Records what a running cohort tells."""
        if "refused" in report:
            # Data, teacher or recipe cannot be used: no other cohort would fare better.
            self.refused = self.refused or report["refused"]
        elif "crashed" in report:
            self._crashes[report["cohort"]] = report["crashed"]
        else:
            for part in report["progress"]:
                if not self.ledger.trial(part["name"]).has_ended:  # else it is old news
                    self.on_change(self.ledger.progress(Progress(**part)))

    def finished(self, cohort: str, *, died: bool = False) -> None:
        """Takes a cohort back: ended, or to be tried again, or given up.

        What a crashed cohort has in checkpoints is not lost: the next attempt goes on from there.

        Args:
            cohort: The cohort.
            died: Whether its process died without a word.
        """
        job = self._running.pop(cohort)
        left = [name for name in job.members if not self.ledger.trial(name).has_ended]
        if not left or self.refused:
            return
        reason = self._crashes.pop(cohort, "")
        if not reason:
            reason = "the worker died" if died else "the worker stopped before its trials ended"
        self._failures[cohort] = self._failures.get(cohort, 0) + 1
        if self._failures[cohort] <= self._max_failures:
            self._waiting.append(cohort)
            return
        why = f"failed {self._failures[cohort]} times: {reason.strip().splitlines()[-1]}"
        for name in left:
            self.on_change(self.ledger.end(name, "failed", why))

    @property
    def _closed(self) -> bool:
        return bool(self.stopped or self.refused)

    def _over_budget(self) -> bool:
        study = self.ledger.study
        hours = study.budget.gpu_hours
        if hours is None:
            return False
        everyone = (*self.ledger.trials, *self.ledger.controls)
        # A trial's seconds are its share of its cohort's, so their sum is the cohorts' time.
        seconds = sum(trial.train_seconds for trial in everyone)
        workers = study.resources.workers * (study.resources.gpus_per_worker or 1.0)
        return seconds * workers >= hours * _SECONDS_AN_HOUR

    def _complete_generation_plans(self) -> None:
        """Plans trials as far as the search can know them, and queues cohorts not yet ended."""
        study, ledger = self.ledger.study, self.ledger
        for number in range(generations(study)):
            trials = self._plan_generation(number)
            learns = study.search.method in _MODEL_BASED
            if learns and any(not trial.has_ended for trial in trials):
                break
        known = {trial.name for trial in ledger.controls}
        for planned in controls(study):
            if f"undistilled-s{planned.seed}" not in known:
                ledger.add(planned, Proposal({}))
        self._waiting = deque(
            cohort
            for cohort, trials in ledger.cohorts().items()
            if cohort not in self._running and any(not t.has_ended for t in trials)
        )

    def _plan_generation(self, number: int) -> list[TrialRecord]:
        """Plans what is missing of a generation, and returns its trials."""
        study, ledger = self.ledger.study, self.ledger
        known = {(trial.configuration, trial.seed): trial for trial in ledger.trials}
        trials = []
        # One configuration after the other, under all seeds: the sampler sees what it asked before.
        for planned in sorted(
            generation(study, number), key=lambda one: (one.configuration, one.seed)
        ):
            trial = known.get((planned.configuration, planned.seed))
            if trial is None:
                trial = ledger.add(planned, self._proposal(planned.configuration))
                self.on_change(trial)
            trials.append(trial)
        return trials

    def _proposal(self, configuration: int) -> Proposal:
        study, ledger = self.ledger.study, self.ledger
        everyone = ledger.by_configuration()
        if configuration < len(everyone):  # proposed already, for another seed
            return Proposal(everyone[configuration][0].parameters)
        if study.search.method in _MODEL_BASED and study.axes:
            return propose(study, everyone, configuration, ledger.memories())
        return Proposal(designed_configuration(study, configuration))
