"""Which trials of a race of seeds may train: a pure function of their records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from kdscale.racing import ERROR_RATE, Outcome, Stop, race
from kdscale.records import RACED_OUT, TrialRecord, trial_name
from kdscale.search._plan import PlannedTrial
from kdscale.search._study import Study


class SeedRace:
    """The trials of one race, and which of them train now.

    A design is one race. Of a search that learns each generation is one, with the configurations of
    earlier ones that were not raced out as rivals. Steps follow one another as in
    `kdscale.racing.race`, each when all trials of the one before have ended; what has been raced
    out stays so. So it may be made at any time from what is known of the trials.
    """

    def __init__(
        self, study: Study, trials: Iterable[TrialRecord], earlier: Iterable[TrialRecord] = ()
    ) -> None:
        """Starts at the first step that has not ended.

        Args:
            study: The study, with seeds that are raced.
            trials: The trials of the race under all seeds.
            earlier: Those of earlier races.
        """
        self._study = study
        self._trials = {trial.name: trial for trial in trials}
        earlier = list(earlier)
        ended = {trial.configuration for trial in earlier if trial.state == "pruned"}
        self._earlier = [trial for trial in earlier if trial.configuration not in ended]
        self._going: set[str] = set()
        self._over = False

    @property
    def going(self) -> set[str]:
        """The trials of the present step that have not ended: they may train, others not yet."""
        return self._going

    def update(self, trial: TrialRecord) -> None:
        """Takes a trial that has changed."""
        self._trials[trial.name] = trial
        if trial.has_ended:
            self._going.discard(trial.name)

    def decide(self) -> dict[str, str]:
        """Returns the trials to end now, with the reasons, if a step has ended; begins the next."""
        if self._going or self._over:
            return {}
        known = (*self._earlier, *self._trials.values())
        found = race(
            {_key(trial): self._outcome(trial) for trial in known if trial.has_ended},
            {_key(trial)[0] for trial in self._trials.values()},
            self._study.seed_list,
            settled={_key(trial)[0] for trial in self._earlier},
            tolerance=self._study.tolerance or 0.0,
        )
        self._going = {PlannedTrial(*item).name for item in found.run.items()}
        self._over = found.done
        return {
            trial.name: self._reason(*_key(trial), found.stopped)
            for trial in self._trials.values()
            if not trial.has_ended and _key(trial)[0] in found.stopped
        }

    def _outcome(self, trial: TrialRecord) -> Outcome:
        if trial.state == "failed":
            return "lost"
        if trial.state != "done" or trial.value is None or not math.isfinite(trial.value):
            return "out"
        return trial.value if self._study.metric.goal == "maximize" else -trial.value

    def _reason(self, configuration: int, seed: int, stopped: Mapping[int, Stop]) -> str:
        stop = stopped[configuration]
        after = f"{RACED_OUT} after {stop.after} seed{'s' if stop.after > 1 else ''}"
        if stop.rival is None:
            last = trial_name(configuration, self._study.seed_list[stop.after - 1])
            return f"{after}: {last} {_why(self._trials[last])}"
        tolerance = f", tolerance {self._study.tolerance:g}" if self._study.tolerance else ""
        rival = trial_name(stop.rival, seed).rpartition("-")[0]
        return f"{after}: surely no better than {rival} (level {ERROR_RATE:.0%}{tolerance})"


def _key(trial: TrialRecord) -> tuple[int, int]:
    assert trial.configuration is not None, "controls are not raced"
    return trial.configuration, trial.seed


def _why(trial: TrialRecord) -> str:
    """Returns what put a configuration out of the race, after the name of its trial."""
    if trial.reason.startswith("rung"):
        return f"was stopped at a {trial.reason.partition(':')[0]}"
    return trial.reason.partition(" (")[0] or "has no finite value"
