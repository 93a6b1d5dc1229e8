"""Ray Tune's side of the queue: a searcher whose every suggestion is a cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from kdscale.search._attempts import Loss
from kdscale.search._deaths import error_in, loss_of
from kdscale.search._queue import CohortQueue
from kdscale.search._watch import Watch


class CohortSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Hands the queue's cohorts to Ray Tune, and what they report to the queue.

    Ray's own OptunaSearch is not used: it names every study "optuna" and so merges sweeps in one
    storage, tells pruned trials as complete, and knows no seeds.
    """

    def __init__(self, queue: CohortQueue, watch: Watch | None = None) -> None:
        super().__init__(metric=None, mode=None)
        self._queue = queue
        self._watch = watch or Watch()
        self._cohorts: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray Tune pickles its searcher with its own state, which nobody reads.

        The study is durable, the Tuner is disposable: a resumed sweep makes a new one for what
        the study still misses.
        """
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next cohort, None to be asked again, or FINISHED."""
        job = self._queue.next()
        if job is not None:
            self._cohorts[trial_id] = job.cohort
            self._watch.handed_out(job)
            return asdict(job)
        return Searcher.FINISHED if self._queue.idle else None

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Hands a report on."""
        if (cohort := self._cohorts.get(trial_id)) is not None:
            self._watch.told(cohort, result)
        self._queue.report(result)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Gives the cohort back to the queue; if its worker died, `Deaths` does so."""
        if not error:
            self.give_back(trial_id)

    def started(self, trial_id: str, actor: str) -> None:
        """Takes note that a cohort's actor has a place."""
        if (cohort := self._cohorts.get(trial_id)) is not None:
            self._watch.started(cohort, actor)

    @property
    def deaths(self) -> Deaths:
        """What Ray Tune tells of workers that died."""
        return Deaths(self)

    def give_back(self, trial_id: str, loss: Loss | None = None) -> None:
        """Gives the cohort back to the queue, with what is known of its worker's death."""
        cohort = self._cohorts.pop(trial_id, None)
        if cohort is not None:
            self._watch.ended(cohort)
            self._queue.finished(cohort, loss)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing, see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing, see `__getstate__`."""


class Deaths(Callback):  # type: ignore[misc]  # Ray has no types
    """Tells the searcher of workers that start or die, which Ray Tune does not tell searchers."""

    def __init__(self, searcher: CohortSearcher) -> None:
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tells the searcher of an actor that has a place."""
        actor = trial.temporary_state.ray_actor
        self._searcher.started(trial.trial_id, actor._actor_id.hex() if actor else "")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Gives a dead worker's cohort back to the queue."""
        # In the driver's own folder: what Tune has uploaded comes too late.
        error = error_in(trial.pickled_error_file, trial.error_file)
        self._searcher.give_back(trial.trial_id, loss_of(error))
