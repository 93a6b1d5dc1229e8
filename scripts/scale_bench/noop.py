"""Studies whose trials train nothing: the engine's own cost, beside plain Ray Tune's.

    python -m scale_bench.noop kdscale|plain|resume TRIALS COHORT FOLDER

Seconds are those of the last nine tenths of the trials, for all of them, and those of planning:
the time in which Ray starts processes is left out. The first trials wait until every lane has one.

The engine's row has the real queue, ledger, searcher and Ray Tune, set up as `kdscale sweep` does;
only what Ray Tune runs for a cohort tells made-up numbers at once. The plain row has as many trials
of a function that reports one number, with the same settings.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdscale.search._cluster import joined_cluster
from kdscale.search._ledger import Ledger, open_ledger
from kdscale.search._queue import CohortQueue
from kdscale.search._tune import tune_cohorts
from scale_bench.study import noop_study

LANES = 2
WARM = 0.1
"""Part of the trials after which memory is taken for the first time."""


class Moments:
    """This process's memory in MiB and the time in seconds, its own and its CPU's, in a run."""

    def __init__(self) -> None:
        self.mib: dict[str, float] = {}
        self.times: dict[str, tuple[float, float]] = {}

    def note(self, moment: str) -> None:
        """Takes them now."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.times[moment] = time.perf_counter(), used.ru_utime + used.ru_stime
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                self.mib[moment] = int(line.split()[1]) / 1024

    def costs(self) -> dict[str, Any]:
        """Returns what the run has cost, from ``start`` to ``planned`` and ``warm`` to ``end``."""
        moments = ("start", "planned", "warm", "end")
        seconds, cpu = (
            (planned - start) + (end - warm) / (1 - WARM)
            for start, planned, warm, end in zip(*(self.times[m] for m in moments), strict=True)
        )
        plan = self.times["planned"][0] - self.times["start"][0]
        return {"seconds": seconds, "cpu_seconds": cpu, "plan_seconds": plan, "mib": self.mib}


def come_in(folder: str) -> None:
    """Returns when every lane has a process: else the first one would do the others' trials."""
    here = Path(folder)
    here.mkdir(exist_ok=True)
    (here / str(os.getpid())).touch()
    while len(os.listdir(here)) < LANES:
        time.sleep(0.01)


def noop(config: Mapping[str, Any], lanes: str) -> None:
    """Tells in one report that all trials of a cohort have trained their one epoch."""
    from ray import tune

    come_in(lanes)
    row = {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "train_accuracy": 30.0, "val_loss": 2.0}
    progress = [
        {"name": name, "status": "done", "rows": [row | {"val_accuracy": number % 90}]}
        for number, name in enumerate(config["members"])
    ]
    tune.report({"cohort": config["cohort"], "images": 100, "progress": progress})


def plain_noop(config: Mapping[str, Any], lanes: str) -> None:
    """Reports one number, as a function of plain Ray Tune does."""
    from ray import tune

    come_in(lanes)
    tune.report({"val_accuracy": config["alpha"]})


def run_kdscale(trials: int, cohort: int, folder: Path) -> dict[str, Any]:
    """Returns what a sweep of no-op trials costs its driver."""
    from kdscale.search._sweep import leased
    from kdscale.search._watching import Watching

    study = noop_study(folder, trials, cohort)
    moments = Moments()
    ended = 0

    def count(trial: Any) -> None:
        nonlocal ended
        ended += trial.has_ended
        if ended == int(WARM * trials):
            moments.note("warm")

    with joined_cluster(), leased(study, print) as (ledger, _):
        moments.note("start")
        queue = CohortQueue(ledger, on_change=count)
        queue.open(LANES)
        moments.note("planned")
        watching = Watching(ledger, print, str)
        with watching, watching.cluster(queue) as watch:
            tune_cohorts(_on_one_cpu(noop, folder), queue, watch, folder / "ray")
        moments.note("end")
    assert queue.complete
    assert all(trial.state == "done" for trial in ledger.trials)
    return moments.costs()


def run_plain(trials: int, cohort: int, folder: Path) -> dict[str, Any]:
    """Returns what as many trials cost the driver of plain Ray Tune."""
    from ray import tune

    moments = Moments()
    ended = 0

    class Count(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            nonlocal ended
            ended += 1
            if ended == int(WARM * len_trials):
                moments.note("warm")

    len_trials = trials
    with joined_cluster():
        moments.note("start")
        moments.note("planned")  # it plans as it goes
        tune.Tuner(
            _on_one_cpu(plain_noop, folder),
            param_space={"alpha": tune.uniform(2, 14)},
            tune_config=tune.TuneConfig(
                num_samples=trials,
                max_concurrent_trials=LANES,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder / "ray"),
                verbose=0,
                callbacks=[Count()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
        moments.note("end")
    assert ended == trials
    return moments.costs()


def run_resume(trials: int, cohort: int, folder: Path) -> dict[str, Any]:
    """Returns the seconds from the study's file to the first job, all but a few trials ended."""
    study = noop_study(folder, trials, cohort)
    if not study.folder.exists():
        _train_all_but(open_ledger(study, create=True), left=cohort)
        return {"made": True}
    began = time.perf_counter()
    ledger = open_ledger(study, create=True)
    opened = time.perf_counter()
    queue = CohortQueue(ledger)
    queue.open(LANES)
    job = queue.next()
    ready = time.perf_counter()
    assert job is not None
    size = sum(path.stat().st_size for path in study.folder.glob("study.db*")) / 2**20
    return {"open": opened - began, "queue": ready - opened, "all": ready - began, "mib": size}


def _train_all_but(ledger: Ledger, left: int) -> None:
    queue = CohortQueue(ledger)
    queue.open(1)
    trials = ledger.study.trials
    row = {"epoch": 1, "val_accuracy": 50.0, "val_loss": 1.0}
    while trials - sum(1 for trial in ledger.trials if trial.has_ended) > left:
        job = queue.next()
        assert job is not None
        told = [{"name": name, "status": "done", "rows": [row]} for name in job.members]
        queue.report({"cohort": job.cohort, "progress": told})
        queue.finished(job.cohort)


def _on_one_cpu(function: Any, folder: Path) -> Any:
    from ray import tune

    function = tune.with_parameters(function, lanes=str(folder / "lanes"))
    return tune.with_resources(function, {"CPU": 1})


if __name__ == "__main__":
    what, trials, cohort, folder = sys.argv[1:]
    run = {"kdscale": run_kdscale, "plain": run_plain, "resume": run_resume}[what]
    found = run(int(trials), int(cohort), Path(folder))
    print(json.dumps(found))
