"""What kdscale itself costs: overhead, memory, resume and dispatch over thousands of trials, DDP.

    python scripts/bench_scale.py                          # 1,000 trials: minutes
    python scripts/bench_scale.py --trials 1000 10000      # bars are for 10,000
    python scripts/bench_scale.py --only resume dispatch   # without Ray

Every measurement has a process of its own. Overhead and memory are those of the driver, Ray's
start left out: kdscale's real queue, ledger, searcher and heartbeat under Ray Tune, with trials
that train nothing, beside plain Ray Tune with as many no-op function trials, reuse_actors and the
same settings in the same run. Time is that of planning and of the last nine tenths of the trials,
for all of them; memory is what these add. Resume
is from the study's file to the first job, all but one cohort's trials ended. Dispatch drives the
queue by a virtual clock. DDP trains one student in kdscale's loop, under torchrun and in Ray Train;
seconds are those of the loop's steps, the first epoch left out.

Bars: a trial's overhead at most 1.05 of plain Ray Tune's, at most 20 MiB more memory over 10,000
trials, resume under 5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent
PARTS = ("overhead", "resume", "dispatch", "ddp")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--trials", type=int, nargs="+", default=[1000])
    arguments.add_argument("--cohorts", type=int, nargs="+", default=[16, 1])
    arguments.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 100])
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = arguments.parse_args()
    tables: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
        "overhead": overhead,
        "resume": resume,
        "dispatch": dispatch,
        "ddp": ddp,
    }
    for part in options.only:
        for line in tables[part](options):
            print(line, flush=True)
        print()
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


def overhead(options: argparse.Namespace) -> Iterator[str]:
    """Yields the table of overhead and memory."""
    yield "| engine | trials | n | ms a trial | of plain | driver's CPU, ms | memory, MiB more |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    engines = [("plain Ray Tune", "plain", 1)]
    engines += [(f"kdscale, cohorts of {size}", "kdscale", size) for size in options.cohorts]
    for trials in options.trials:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in engines}
        for _ in range(options.rounds):  # engines take turns
            for name, what, size in engines:
                with tempfile.TemporaryDirectory() as folder:
                    found[name].append(run("noop", what, trials, size, folder))
        plain = statistics.median(one["seconds"] for one in found["plain Ray Tune"])
        for name, rounds in found.items():
            seconds = statistics.median(one["seconds"] for one in rounds)
            cpu = statistics.median(one["cpu_seconds"] for one in rounds)
            more = statistics.median(one["mib"]["end"] - one["mib"]["warm"] for one in rounds)
            yield (
                f"| {name} | {trials:,} | {len(rounds)} | {1000 * seconds / trials:.1f} "
                f"| {seconds / plain:.2f} | {1000 * cpu / trials:.1f} | {more:.0f} |"
            )


def resume(options: argparse.Namespace) -> Iterator[str]:
    """Yields the table of resume times."""
    yield "| trials | n | ledger, s | queue and first job, s | all, s | database, MiB |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for trials in options.trials:
        with tempfile.TemporaryDirectory() as folder:
            run("noop", "resume", trials, 16, folder)  # makes the study
            rounds = [run("noop", "resume", trials, 16, folder) for _ in range(options.rounds)]
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        yield (
            f"| {trials:,} | {len(rounds)} | {middle['open']:.2f} | {middle['queue']:.2f} "
            f"| {middle['all']:.2f} | {middle['mib']:.0f} |"
        )


def dispatch(options: argparse.Namespace) -> Iterator[str]:
    """Yields the table of a simulated cluster."""
    yield (
        "| nodes | lanes | trials | cohorts | plan, s | next(), ms | report(), ms | finished(), ms "
        "| all, ms a trial | virtual hours |"
    )
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for trials in options.trials:
        for nodes in options.nodes:
            with tempfile.TemporaryDirectory() as folder:
                found = run("dispatch", nodes, trials, 16, folder)
            calls = " | ".join(
                f"{1000 * found[f'{name}_mean']:.2f} (at most {1000 * found[f'{name}_most']:.0f})"
                for name in ("next", "report", "finished")
            )
            yield (
                f"| {nodes} | {8 * nodes} | {trials:,} | {found['cohorts']:.0f} "
                f"| {found['plan']:.1f} | {calls} | {1000 * found['all'] / trials:.2f} "
                f"| {found['virtual_hours']:.1f} |"
            )


def ddp(options: argparse.Namespace) -> Iterator[str]:
    """Yields the table of two workers beside one."""
    yield "| engine | n | 1 worker, s an epoch | 2 workers, s an epoch | efficiency |"
    yield "|---|---:|---:|---:|---:|"
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for engine in ("torchrun", "kdscale in Ray Train"):
            for workers in (1, 2):
                with tempfile.TemporaryDirectory() as folder:
                    what = "torchrun" if engine == "torchrun" else "ray"
                    seconds = run("ddp", what, workers, folder)["seconds"]
                found.setdefault((engine, workers), []).append(seconds)
    for engine in ("torchrun", "kdscale in Ray Train"):
        one, two = (statistics.median(found[engine, workers]) for workers in (1, 2))
        yield f"| {engine} | {options.rounds} | {one:.2f} | {two:.2f} | {one / (2 * two):.0%} |"


def run(module: str, *arguments: object) -> dict[str, Any]:
    """Returns what a part prints in a process of its own."""
    command = [sys.executable, "-m", f"scale_bench.{module}", *map(str, arguments)]
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(command)}\n{ran.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
