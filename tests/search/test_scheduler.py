"""What Ray Tune does under our scheduler, with cohorts that train nothing."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from kdscale.search._scheduler import LaneScheduler, NoProgress

LANES = 3
GENERATIONS = 3

pytestmark = pytest.mark.slow


class Generations(Searcher):  # type: ignore[misc]  # Ray has no types
    """Hands out as many trials as there are lanes, and the next ones when all of them have ended.

    Args:
        folder: Where trials of a generation wait for each other.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(metric=None, mode=None)
        self.folder = folder
        self.numbers: dict[str, int] = {}
        self.running: set[str] = set()
        self.told: list[tuple[int, bool]] = []
        self.lanes: set[int] = set()
        self.most_kept = 0

    def suggest(self, trial_id: str) -> Any:
        number = len(self.numbers)
        if not self.running:
            gc.collect()
            kept = sum(type(one) is Trial for one in gc.get_objects())
            self.most_kept = max(kept, self.most_kept)
        if number == LANES * GENERATIONS:
            return None if self.running else Searcher.FINISHED
        if self.running and number % LANES == 0:
            return None
        self.numbers[trial_id] = number
        self.running.add(trial_id)
        return {"number": number, "folder": str(self.folder)}

    def on_trial_result(self, trial_id: str, result: Any) -> None:
        self.lanes.add(result["lane"])

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self.told.append((self.numbers[trial_id], error))
        self.running.remove(trial_id)


def run(
    folder: Path, failing: Sequence[int] = (), last_seconds: float = 0.0, **how: float
) -> Generations:
    """Returns the searcher after all of its trials have ended.

    Args:
        folder: Where to write.
        failing: Numbers of those that fail.
        last_seconds: How long the last one of a generation goes on alone.
        how: What the scheduler is given.
    """

    def train(config: dict[str, Any]) -> None:  # here, because workers do not know this file
        number = config["number"]
        here = Path(config["folder"]) / f"generation-{number // LANES}"
        here.mkdir(exist_ok=True)
        (here / str(number)).touch()
        while len(list(here.iterdir())) < LANES:  # or else one lane would do it all
            time.sleep(0.05)
        if number % LANES == LANES - 1:
            time.sleep(last_seconds)
        tune.report({"lane": os.getpid()})
        if number in failing:
            raise ValueError("this one fails")

    together = folder / "together"
    together.mkdir()
    searcher = Generations(together)
    tune.Tuner(
        tune.with_resources(train, {"CPU": 0.5}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=LaneScheduler(**how),
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder), verbose=0, callbacks=[NoProgress()]
        ),
    ).fit()
    return searcher


def test_idle_lanes_are_kept_and_ended_cohorts_are_not(cluster: None, tmp_path: Path) -> None:
    searcher = run(tmp_path)
    assert sorted(searcher.told) == [(number, False) for number in range(LANES * GENERATIONS)]
    assert len(searcher.lanes) == LANES
    assert searcher.most_kept <= LANES + 1


def test_lanes_that_are_idle_for_long_are_let_go(cluster: None, tmp_path: Path) -> None:
    searcher = run(tmp_path, last_seconds=3.0, idle_seconds=1.0)
    assert sorted(searcher.told) == [(number, False) for number in range(LANES * GENERATIONS)]
    assert len(searcher.lanes) == LANES + (LANES - 1) * (GENERATIONS - 1)


def test_cohorts_that_fail_are_told_and_forgotten_too(
    cluster: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "ray.tune")  # as in a sweep: a log would keep their errors
    failing = (2, 5, 6)
    searcher = run(tmp_path, failing)
    every = range(LANES * GENERATIONS)
    assert sorted(searcher.told) == [(number, number in failing) for number in every]
    assert searcher.most_kept <= LANES + 1
