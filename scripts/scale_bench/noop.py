"""Studies whose trials train nothing: the engine's own cost, beside plain Ray Tune's.

    python -m scale_bench.noop kdscale|plain|resume TRIALS COHORT FOLDER

The engine's row has the real queue, ledger, searcher and Ray Tune, set up as `kdscale sweep` does;
only what Ray Tune runs for a cohort tells made-up numbers at once. The plain row has as many trials
of a function that reports one number, with the same settings.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdscale.search._cluster import joined_cluster
from kdscale.search._ledger import Ledger, open_ledger
from kdscale.search._queue import CohortQueue
from scale_bench.study import noop_study

LANES = 2
WARM = 0.1
"""Part of the trials after which memory is taken for the first time."""


class Memory:
    """This process's memory at moments of a run, in MiB."""

    def __init__(self) -> None:
        self.mib: dict[str, float] = {}

    def note(self, moment: str) -> None:
        """Takes the memory now."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                self.mib[moment] = int(line.split()[1]) / 1024


def noop(config: Mapping[str, Any]) -> None:
    """Tells in one report that all trials of a cohort have trained their one epoch."""
    from ray import tune

    row = {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "train_accuracy": 30.0, "val_loss": 2.0}
    progress = [
        {"name": name, "status": "done", "rows": [row | {"val_accuracy": number % 90}]}
        for number, name in enumerate(config["members"])
    ]
    tune.report({"cohort": config["cohort"], "images": 100, "progress": progress})


def plain_noop(config: Mapping[str, Any]) -> None:
    """Reports one number, as a function of plain Ray Tune does."""
    from ray import tune

    tune.report({"val_accuracy": config["alpha"]})


def run_kdscale(trials: int, cohort: int, folder: Path) -> dict[str, Any]:
    """Returns what a sweep of no-op trials costs its driver."""
    from kdscale.search._searcher import CohortSearcher
    from kdscale.search._sweep import leased
    from kdscale.search._watching import Watching

    study = noop_study(folder, trials, cohort)
    memory = Memory()
    ended = 0

    def count(trial: Any) -> None:
        nonlocal ended
        ended += trial.has_ended
        if ended == int(WARM * trials):
            memory.note("warm")

    with joined_cluster(), leased(study, print) as (ledger, _):
        memory.note("start")
        began = time.perf_counter(), _cpu_seconds()
        queue = CohortQueue(ledger, on_change=count)
        queue.open(LANES)
        planned = time.perf_counter()
        memory.note("planned")
        watching = Watching(ledger, print, str)
        with watching, watching.cluster(queue) as watch:
            searcher = CohortSearcher(queue, watch)
            _fit(noop, folder, search_alg=searcher, num_samples=-1, callbacks=[searcher.deaths])
        seconds, cpu = time.perf_counter() - began[0], _cpu_seconds() - began[1]
        memory.note("end")
    assert queue.complete
    assert all(trial.state == "done" for trial in ledger.trials)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "plan_seconds": planned - began[0],
        "mib": memory.mib,
    }


def run_plain(trials: int, cohort: int, folder: Path) -> dict[str, Any]:
    """Returns what as many trials cost the driver of plain Ray Tune."""
    from ray import tune

    memory = Memory()
    ended = 0

    class Count(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            nonlocal ended
            ended += 1
            if ended == int(WARM * len_trials):
                memory.note("warm")

    len_trials = trials
    with joined_cluster():
        memory.note("start")
        began = time.perf_counter(), _cpu_seconds()
        space = {"alpha": tune.uniform(2, 14)}
        _fit(plain_noop, folder, space, num_samples=trials, callbacks=[Count()])
        seconds, cpu = time.perf_counter() - began[0], _cpu_seconds() - began[1]
        memory.note("end")
    assert ended == trials
    return {"seconds": seconds, "cpu_seconds": cpu, "plan_seconds": 0.0, "mib": memory.mib}


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


def _fit(trainable: Any, folder: Path, space: Any = None, **how: Any) -> None:
    from ray import tune

    callbacks = how.pop("callbacks")
    tune.Tuner(
        tune.with_resources(trainable, {"CPU": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=LANES,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
            **how,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "ray"),
            verbose=0,
            callbacks=callbacks,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    what, trials, cohort, folder = sys.argv[1:]
    run = {"kdscale": run_kdscale, "plain": run_plain, "resume": run_resume}[what]
    found = run(int(trials), int(cohort), Path(folder))
    print(json.dumps(found))
