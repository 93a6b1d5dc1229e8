"""Ray Tune's scheduler: first come, first served, with a memory that suits thousands of cohorts.

Ray Tune keeps every trial that it ever had, with its configuration, results and their statistics,
and its own scheduler looks at each of them in every step: a driver that hands out thousands of
cohorts grows and slows down with their number. A cohort that has ended is in the study, and no one
asks Ray Tune for it again. Nor does anyone read what its callback for progress keeps.

Of actors that have nothing to do it keeps one. Lanes often wait for each other, at a rung or for
the next generation of a search, and would then have to start anew, with torch, data and teacher.
After two minutes they go all the same: an autoscaler may want their nodes.

Of errors that are not an actor's own it knows the actor's death alone, and ends everything with
any other, as when Ray itself kills an actor because its node runs out of memory. Here each of them
is that actor's death.
"""

from __future__ import annotations

import time
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler

_HOLDERS = ("_live_trials", "_stopped_trials", "_failed_trials", "_trials_to_cache")
_ALL = 1_000_000  # more than there are ever lanes
_IDLE_SECONDS = 120.0


class LaneGoneError(RayActorError):  # type: ignore[misc]  # Ray has no types
    """A lane's actor that Ray has ended.

    Attributes:
        cause: Ray's own error.
    """

    def __init__(self, cause: RayError) -> None:
        super().__init__(error_msg=str(cause))
        self.cause = cause


class LaneScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray has no types
    """Runs cohorts in the order of their submission, forgets ended ones, and keeps idle lanes.

    Args:
        idle_seconds: How long lanes are kept while some have nothing to do.
    """

    def __init__(self, idle_seconds: float = _IDLE_SECONDS) -> None:
        super().__init__()
        self._idle_seconds = idle_seconds
        self._all_busy = 0.0
        self._began = False
        self._kept: Any = None  # what all cohorts ask for, while their actors are kept

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Makes Ray Tune keep actors that have nothing to do, and take all of their deaths."""
        if not self._began:
            self._began = True
            take_all_deaths(_controller(tune_controller)._actor_manager)
        if self._kept is None:
            self._kept = trial.placement_group_factory
            self._all_busy = time.monotonic()
            _controller(tune_controller)._actor_cache.increase_max(self._kept, _ALL)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Returns the next cohort to run, if there is one, after ended ones are forgotten."""
        controller = _controller(tune_controller)
        _forget_ended(controller)
        self._let_go(controller._actor_cache)
        return super().choose_trial_to_run(tune_controller)

    def _let_go(self, cache: Any) -> None:
        """Lets Ray Tune end idle actors, if there have been some for long."""
        now = time.monotonic()
        if not cache.num_cached_objects:
            self._all_busy = now
        elif self._kept is not None and now - self._all_busy > self._idle_seconds:
            cache.decrease_max(self._kept, _ALL)
            self._kept = None


class NoProgress(TrialProgressCallback):  # type: ignore[misc]  # Ray has no types
    """Stands where Ray Tune would put the callback that prints results, and keeps their trials."""

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """Does nothing."""

    def on_trial_complete(self, *args: Any, **info: Any) -> None:
        """Does nothing."""

    def on_trial_error(self, *args: Any, **info: Any) -> None:
        """Does nothing."""


def take_all_deaths(manager: Any) -> None:
    """Makes Ray Tune's manager of actors take every error of Ray itself for an actor's death."""
    failed = manager._actor_task_failed

    def actor_task_failed(tracked_actor_task: Any, exception: Exception) -> None:
        known = RayActorError | RayTaskError
        if isinstance(exception, RayError) and not isinstance(exception, known):
            exception = LaneGoneError(exception)
        failed(tracked_actor_task=tracked_actor_task, exception=exception)

    manager._actor_task_failed = actor_task_failed


def _controller(given: Any) -> Any:
    """Returns Ray Tune's controller, of which schedulers are given a wrapper."""
    return given.get_trials.__self__


def _forget_ended(controller: Any) -> None:
    """Takes trials that have ended, and have no actor any more, out of Ray Tune's controller."""
    trials = controller.get_trials()
    ended = [t for t in trials if t.is_finished() and t not in controller._trial_to_actor]
    if not ended:
        return
    trials[:] = [trial for trial in trials if trial not in ended]
    for holder in _HOLDERS:
        getattr(controller, holder).difference_update(ended)
    for trial in ended:
        controller._trial_metadata.pop(trial.trial_id, None)
