"""Times the engine itself: from command to first result, and for each further trial.

    python scripts/bench_overhead.py [--rounds 3] [--trials 8]

Every trial trains for one step and scores one validation split, so that what is left is the
engine. The training function is the same everywhere (`kdscale.training`, live teacher, one trial
a process turn); plain Ray Tune calls it from a function trainable, as its users write it. Engines
take turns within each round; the table shows medians. One cohort or trial runs at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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
    "resources.cpus_per_worker=2",
)

PLAIN_TUNE = """
import json, sys
from pathlib import Path
from ray import tune
import ray
from kdscale.data import load_data
from kdscale.search import designed_configuration, load_study
from kdscale.training import Cohort, Group, Member, load_teacher, train_cohort

study_file, overrides, folder, trials, reuse = json.loads(sys.argv[1])

def train(config):
    study = load_study(study_file, overrides)
    data = load_data(study.task.data)
    teacher = load_teacher(study.task.teacher, data, Path(folder))
    resolved = study.resolve(config["values"])
    place = Path(folder) / "trials" / str(config["number"])
    member = Member(str(config["number"]), 1.0, resolved.terms, resolved.recipe, place)
    cohort = Cohort(study.task.student, (member,), 0, study.budget.epochs)
    for progress in train_cohort(cohort, data, teacher, Group()):
        for row in progress[0].rows:
            tune.report(dict(row))

study = load_study(study_file, overrides)
configurations = [
    {"number": number, "values": designed_configuration(study, number)} for number in range(trials)
]
ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
tune.Tuner(
    tune.with_resources(train, {"CPU": 2}),
    param_space={"values": None, "number": None} | {
        key: tune.grid_search([c[key] for c in configurations]) for key in ("number",)
    } | {"values": tune.sample_from(lambda spec: configurations[spec.config.number]["values"])},
    tune_config=tune.TuneConfig(reuse_actors=reuse, max_concurrent_trials=1),
    run_config=tune.RunConfig(storage_path=folder + "/ray", verbose=0),
).fit()
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--trials", type=int, default=8)
    options = arguments.parse_args()
    engines: dict[str, Callable[[str], list[str]]] = {
        "plain Ray Tune": lambda folder: plain(folder, options.trials, reuse=False),
        "plain Ray Tune, reuse_actors": lambda folder: plain(folder, options.trials, reuse=True),
        "kdscale, cohorts of 1": lambda folder: kdscale(folder, options.trials, cohort=1),
        "kdscale, cohorts of 8": lambda folder: kdscale(folder, options.trials, cohort=8),
    }
    first: dict[str, list[float]] = {name: [] for name in engines}
    further: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, command in engines.items():
            with tempfile.TemporaryDirectory() as folder:
                times = run(command(folder), Path(folder), options.trials)
            first[name].append(times[0])
            further[name].append((times[-1] - times[0]) / (options.trials - 1))
    print(f"n = {options.rounds} rounds, {options.trials} trials of one step each\n")
    print("| engine | command to first result, s | each further trial, s |")
    print("|---|---|---|")
    for name in engines:
        print(
            f"| {name} | {statistics.median(first[name]):.1f} "
            f"| {statistics.median(further[name]):.2f} |"
        )


def plain(folder: str, trials: int, *, reuse: bool) -> list[str]:
    settings = json.dumps([str(STUDY), list(OVERRIDES), folder, trials, reuse])
    return [sys.executable, "-c", PLAIN_TUNE, settings]


def kdscale(folder: str, trials: int, *, cohort: int) -> list[str]:
    command = [str(Path(sys.executable).with_name("kdscale")), "sweep", str(STUDY), *OVERRIDES]
    own = (f"budget.trials={trials}", f"resources.cohort={cohort}", f"storage.folder='{folder}'")
    return [*command, *own]


def run(command: list[str], folder: Path, trials: int) -> list[float]:
    """Returns when each trial's student was written, in seconds after the command, sorted."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    started = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    students = sorted(folder.rglob("student.pt"))
    if done.returncode or len(students) != trials:
        sys.exit(f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return sorted(path.stat().st_mtime - started for path in students)


if __name__ == "__main__":
    main()
