"""Times sweeps of N trials: cohorts beside plain Ray Tune, torchdistill and mdistiller.

    python scripts/bench_cohort.py [--trials 1 4 9 16] [--steps 8] [--rounds 3] [--solo-trials 0]
    python scripts/bench_cohort.py --trials 1 4 --steps 2 --rounds 1 --solo-trials 1  # minutes

LDRLD over alpha, beta, depth and temperature on icons100, one thread a process, every trial one
epoch of equal steps, batch 64. Engines take turns within each round; the table shows medians of
the seconds of training a trial takes: loading, evaluation and process starts are left out, the
first steps' warm-up is not. Training processes run one at a time unless --processes says
otherwise. Engines with one process a trial cost the same per trial at every N:
--solo-trials K measures K of them instead of N.

torchdistill is no dependency. Its row is left out unless it can be imported:

    pip install --target FOLDER --no-deps torchdistill && PYTHONPATH=FOLDER python scripts/...

The ideal is (data + teacher) / N + student, each measured alone in the same rounds, in plain
PyTorch: the student as a list of operators without the loop around it. The cache's rows appear
once study files know ``task.teacher.cache``; their ideal has no teacher.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

import torch
from cohort_bench.ideal import Parts, parts
from cohort_bench.setting import BATCH_SIZE, Setting, save_images, save_teacher, study_file

from kdscale.training import TeacherSpec

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
HAS_CACHE = "cache" in TeacherSpec.model_fields
LIVE = ("task.teacher.cache.enabled=false",) if HAS_CACHE else ()
OWN = "plain Ray Tune, kdscale's loop, K = 1"
COHORTS = "kdscale cohorts, live teacher"
SWEEP = """
import ray
ray.init(
    address="local", num_cpus={processes}, include_dashboard=False, log_to_driver=False,
    logging_level="ERROR", runtime_env={{"env_vars": {{"OMP_NUM_THREADS": "1"}}}},
)
from kdscale.cli import app
app()
"""
"""A sweep on as many CPUs as may train at the same time, so that its lanes are as many."""


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as images:
        save_images(options.steps, Path(images))
        measure(options, Setting.of(options, Path(images)))


def measure(options: argparse.Namespace, setting: Setting) -> None:
    """Lets the engines take turns, and prints the table after each round."""
    solo = {OWN: "own", "plain Ray Tune, mdistiller's step (ours)": "mdistiller"}
    if importlib.util.find_spec("torchdistill"):
        solo["plain Ray Tune, torchdistill"] = "torchdistill"
    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    memory: dict[tuple[str, int], list[float]] = defaultdict(list)
    measured: list[Parts] = []
    for turn in range(options.rounds):
        say(turn, "parts")
        measured.append(parts(setting))
        for name, engine in solo.items():
            for trials in [options.solo_trials] if options.solo_trials else options.trials:
                say(turn, f"{name}, {trials} trial(s)")
                found, peak = run_solo(engine, trials, setting, options.processes)
                for n in options.trials if options.solo_trials else [trials]:
                    seconds[name, n].append(found)
                    memory[name, n].append(peak)
        for n in options.trials:
            say(turn, f"kdscale, {n} trial(s)")
            for name, found, peak in run_kdscale(n, setting, options.processes):
                seconds[name, n].append(found)
                memory[name, n].append(peak)
        print(f"\n{table(options, measured, seconds, memory)}\n", flush=True)
    if "plain Ray Tune, torchdistill" not in solo:
        print("\ntorchdistill is not installed: its row is left out")
    if not HAS_CACHE:
        print("\nthis kdscale has no task.teacher.cache: the rows of the cache are left out")


def say(turn: int, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} round {turn + 1}: {what}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 4, 9, 16])
    parser.add_argument("--steps", type=int, default=8, help="steps of a trial")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--solo-trials", type=int, default=0, help="0: as many as cohorts train")
    parser.add_argument("--processes", type=int, default=1, help="training at the same time")
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--channels-last", action="store_true", help="for kdscale's loop and ideal")
    return parser.parse_args()


def run_solo(engine: str, trials: int, setting: Setting, processes: int) -> tuple[float, float]:
    """Returns mean seconds of training a trial, and the largest process in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        given = (engine, trials, *astuple(setting), processes, folder)
        command = [sys.executable, "-m", "cohort_bench.solo", *map(str, given)]
        output, peak = run(command)
    (line,) = [line for line in output.splitlines() if line.startswith("seconds ")]
    return statistics.mean(json.loads(line.removeprefix("seconds "))), peak


def run_kdscale(n: int, setting: Setting, processes: int) -> list[tuple[str, float, float]]:
    """Returns name, mean seconds of training a trial and MiB of each kind of sweep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_teacher(setting, folder)
        file = folder / "study.yaml"
        cohort = -(-n // processes)
        file.write_text(study_file(setting, n, cohort, folder))
        kinds = {COHORTS: LIVE}
        if HAS_CACHE:
            cached = f"task.teacher.cache.folder='{folder / 'cache'}'"
            kinds["kdscale cohorts, cold cache"] = (cached,)
            kinds["kdscale cohorts, warm cache"] = (cached,)
        found = []
        for number, (kind, overrides) in enumerate(kinds.items()):
            study = folder / f"studies{number}"
            program = SWEEP.format(processes=processes)
            command = [sys.executable, "-c", program, "sweep", str(file), *overrides]
            _, peak = run([*command, f"storage.folder='{study}'"])
            checkpoints = list(study.rglob("checkpoint.pt"))
            saved = [torch.load(path, weights_only=True) for path in checkpoints]
            trials = [one["seconds"] for one in saved if one["trial"] != "teacher"]
            if len(trials) != n:
                sys.exit(f"{kind}: {len(trials)} of {n} trials have a checkpoint")
            found.append((kind, statistics.mean(trials), peak))
    return found


def run(command: list[str]) -> tuple[str, float]:
    """Returns a command's output and the largest memory of one of its processes in MiB."""
    paths = [str(ROOT), str(SCRIPTS), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": ":".join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    with tempfile.TemporaryFile("w+") as output:
        started = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=SCRIPTS
        )
        peak = 0.0
        while started.poll() is None:
            peak = max(peak, largest_process(started.pid))
            time.sleep(0.3)
        output.seek(0)
        text = output.read()
    if started.returncode:
        sys.exit(f"{' '.join(command)} ended with {started.returncode}:\n{text[-4000:]}")
    return text, peak


def largest_process(pid: int) -> float:
    """Returns the peak resident memory of the largest Ray worker below a process, in MiB."""
    parents, peaks = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "status").read_text()
        except OSError:  # it has ended
            continue
        fields = dict(line.split(":", 1) for line in text.splitlines())
        number = int(path.name)
        parents[number] = int(fields["PPid"])
        if fields["Name"].strip().startswith("ray::"):
            peaks[number] = int(fields.get("VmHWM", "0 kB").split()[0]) / 1024
    return max((peak for one, peak in peaks.items() if _is_below(one, pid, parents)), default=0.0)


def _is_below(process: int, ancestor: int, parents: Mapping[int, int]) -> bool:
    while process in parents and process != ancestor:
        process = parents[process]
    return process == ancestor


def table(
    options: argparse.Namespace,
    measured: list[Parts],
    seconds: dict[tuple[str, int], list[float]],
    memory: dict[tuple[str, int], list[float]],
) -> str:
    """Returns the result as Markdown."""
    data, teacher, student = (statistics.median(part) for part in zip(*measured, strict=True))
    images = options.steps * BATCH_SIZE
    lines = [
        f"{options.teacher} -> {options.student}, batch {BATCH_SIZE}, {options.steps} steps, "
        f"channels_last {options.channels_last}, {options.processes} process(es) of one thread, "
        f"n = {len(measured)} rounds; parts of a step in ms: data {1e3 * data:.0f}, "
        f"teacher {1e3 * teacher:.0f}, student {1e3 * student:.0f}",
        "",
        "| engine | N | s / trial | images / s | of plain | of ideal | MiB | MiB / added student |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first = min(options.trials)
    for name in dict.fromkeys(name for name, _ in seconds):
        for n in options.trials:
            took = statistics.median(seconds[name, n])
            plain = statistics.median(seconds[OWN, n])
            size = statistics.median(memory[name, n])
            together = -(-n // options.processes) if name.startswith("kdscale") else 1
            shared = data + (0.0 if name.endswith("warm cache") else teacher)
            ideal = options.steps * (shared / together + student)
            added = "-"
            if together > 1 and n > first:
                alone = -(-first // options.processes)
                more = size - statistics.median(memory[name, first])
                added = f"{more / (together - alone):.0f}" if together > alone else "-"
            lines.append(
                f"| {name} | {n} | {took:.2f} | {images / took:.0f} | {took / plain:.2f}x "
                f"| {took / ideal:.2f}x | {size:.0f} | {added} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
