"""Times the start of a cohort: from the end of the one before it to its workers' first word.

    python scripts/bench_warm.py [--rounds 3] [--cohorts 4]

Every engine gets the same cohorts from the same queue through the same searcher, one at a time;
only what Ray Tune runs for a cohort differs. Times are taken in the driver: a cohort begins when
its workers have data, teacher and students and report that they begin, and it ends with its last
report. The first cohort's start counts from the start of Ray Tune, with Ray up and the teacher
stored. Engines take turns within each round; the table shows medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdscale.records import TrialRecord
from kdscale.search import Study, load_study, open_ledger
from kdscale.search._cluster import joined_cluster
from kdscale.search._cohort_job import Job, Place, reports, threads, tune_job
from kdscale.search._queue import CohortQueue
from kdscale.search._resources import worker_bundle
from kdscale.search._sweep import _prepare_teacher
from kdscale.training import Group

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "search_spaces" / "quickstart" / "icons100-ldrld.yaml"
OVERRIDES = (
    "task.data.train_images=100",
    "budget.epochs=1",
    "task.recipe.warmup_epochs=0",
    "~rungs",
    "search.method=random",
    "seeds=1",
    "undistilled=false",
    "resources.cohort=1",
    "task.teacher.inference=folded",
)
DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--cohorts", type=int, default=4)
    options = arguments.parse_args()
    engines: dict[str, tuple[int, Callable[[Place], Any], bool]] = {
        "plain Ray Tune, a process a cohort": (1, plain, False),
        "kdscale": (1, plain, True),
        "nested TorchTrainer a cohort": (2, nested, True),
        "kdscale, warm lane": (2, warm, True),
    }
    starts: dict[str, list[list[float]]] = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, (workers, trainable, reuse) in engines.items():
            with tempfile.TemporaryDirectory() as folder:
                study = load_study(
                    STUDY,
                    (
                        *OVERRIDES,
                        f"budget.trials={options.cohorts}",
                        f"resources.workers={workers}",
                        f"storage.folder='{folder}'",
                    ),
                )
                starts[name].append(run(study, trainable, reuse=reuse))
            print(name, [f"{seconds:.2f}" for seconds in starts[name][-1]], flush=True)
    print(
        f"\nn = {options.rounds} rounds of {options.cohorts} cohorts, one trial of one epoch each;"
    )
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}\n")
    print("| engine | workers | first, s | second, s | third and later, s |")
    print("|---|---|---|---|---|")
    for name, (workers, _, _) in engines.items():
        rounds = starts[name]
        first = statistics.median(times[0] for times in rounds)
        second = statistics.median(times[1] for times in rounds)
        later = statistics.median(seconds for times in rounds for seconds in times[2:])
        print(f"| {name} | {workers} | {first:.2f} | {second:.2f} | {later:.2f} |")


def run(study: Study, trainable: Callable[[Place], Any], *, reuse: bool) -> list[float]:
    """Returns the seconds that each cohort took to start."""
    from ray import tune

    from kdscale.search._searcher import CohortSearcher

    ledger = open_ledger(study, create=True)
    words: dict[str, list[float]] = {}

    def note(trial: TrialRecord) -> None:
        words.setdefault(trial.name, []).append(time.perf_counter())

    with joined_cluster():
        teacher = _prepare_teacher(study, ledger, lambda progress: None)
        queue = CohortQueue(ledger, on_change=note)
        words.clear()  # each trial was planned: what follows is its begin, and its workers' words
        place = Place(study, study.folder.absolute(), teacher.absolute())
        ended = time.perf_counter()
        tune.Tuner(
            trainable(place),
            tune_config=tune.TuneConfig(
                search_alg=CohortSearcher(queue),
                num_samples=-1,
                max_concurrent_trials=1,
                reuse_actors=reuse,
            ),
            run_config=tune.RunConfig(
                storage_path=str(place.folder / "ray"),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    assert queue.complete
    starts = []
    for _, first_word, last_word in words.values():
        starts.append(first_word - ended)
        ended = last_word
    return starts


def plain(place: Place) -> Any:
    """Returns what trains a cohort in Ray Tune's own actor."""
    from ray import tune

    return tune.with_resources(
        tune.with_parameters(tune_job, place=place), worker_bundle(place.study.resources)
    )


def warm(place: Place) -> Any:
    """Returns kdscale's lane of several workers."""
    from ray import tune

    from kdscale.search._lane import WarmLane

    return tune.with_resources(tune.with_parameters(WarmLane, place=place), DRIVER)


def nested(place: Place) -> Any:
    """Returns what starts a TorchTrainer for each cohort, as Ray's documentation has it."""
    from ray import tune

    return tune.with_resources(tune.with_parameters(_nested, place=place), DRIVER)


def _nested(config: Mapping[str, Any], place: Place) -> None:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    # Workers wait at every report until Train has looked at it: seconds, unless it looks often.
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    resources = place.study.resources
    TorchTrainer(
        _nested_worker,
        train_loop_config={"job": dict(config), "place": place},
        torch_config=TorchConfig(backend="nccl" if resources.gpus_per_worker else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=worker_bundle(resources),
        ),
        run_config=ray.train.RunConfig(
            name=f"{config['cohort']}-{os.getpid()}",
            storage_path=str(place.folder / "ray"),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def _nested_worker(config: Mapping[str, Any]) -> None:
    import ray.train
    from ray.train.torch import get_device

    threads(config["place"].study)
    for report in reports(Job(**config["job"]), config["place"], Group.current(get_device())):
        ray.train.report(report)


if __name__ == "__main__":
    main()
