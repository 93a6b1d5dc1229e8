"""The queue's cohorts through Ray Tune."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from kdscale.search._queue import CohortQueue
from kdscale.search._watch import Watch


def tune_cohorts(trainable: Any, queue: CohortQueue, watch: Watch, scratch: Path) -> None:
    """Trains cohorts until the queue has no more.

    Args:
        trainable: What Ray Tune runs for each, with its resources.
        queue: Hands them out, and takes what they tell.
        watch: Follows them.
        scratch: A folder for Ray Tune's own files, which is deleted.
    """
    from ray import tune

    from kdscale.search._scheduler import LaneScheduler, NoProgress
    from kdscale.search._searcher import CohortSearcher

    searcher = CohortSearcher(queue, watch)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=LaneScheduler(),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            verbose=0,
            callbacks=[searcher.deaths, NoProgress()],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
