"""What MLflow costs a sweep: in the study's own database, and with its server away all the time.

    python scripts/bench_tracking.py                  # the quickstart's study: some twenty minutes
    python scripts/bench_tracking.py --rounds 3 -- budget.trials=4

Whole sweeps take turns: without tracking, tracked in the study folder, and tracked by a server that
never answers. Seconds of a sweep move by more than what is to be seen, so the driver's CPU seconds
stand beside them: trials train in other processes, and what it computes is all that they can lose.

Bar: with the server away a sweep is slowed by less than 1%.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "search_spaces" / "quickstart" / "icons100-ldrld.yaml"
AWAY = "http://127.0.0.1:9"
ARMS = {
    "none": ("tracking.mlflow=false",),
    "the study's own database": (),
    "a server that is away": (f"tracking.uri='{AWAY}'",),
}
COMMAND = """
import time
from kdscale.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(time.process_time())
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("overrides", nargs="*", help="of the study, such as budget.trials=4")
    options = arguments.parse_args()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
    for _ in range(options.rounds):
        for name, own in ARMS.items():
            with tempfile.TemporaryDirectory() as folder:
                words = (*own, f"storage.folder='{folder}'", *options.overrides)
                found[name].append(seconds_of("sweep", str(STUDY), *words))
    print("| MLflow | n | sweep, s | of none | driver's CPU, s | more of it, of the sweep |")
    print("|---|---:|---:|---:|---:|---:|")
    middle = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)]
        for name, rounds in found.items()
    }
    plain, plain_cpu = middle["none"]
    for name, (seconds, cpu) in middle.items():
        print(
            f"| {name} | {options.rounds} | {seconds:.1f} | {seconds / plain:.3f} | {cpu:.1f} "
            f"| {(cpu - plain_cpu) / plain:+.1%} |"
        )


def seconds_of(*words: str) -> tuple[float, float]:
    """Returns how long a command of kdscale took, and the CPU seconds of its process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"kdscale {' '.join(words)}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - started, float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
