"""Times a report of 1,000 simulated trials, and prints a Markdown table.

    python scripts/bench_report.py

Statistics and all files, after the imports.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kdscale.analysis import write_report

sys.path.append(str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    from analysis.studies import simulate

    print("| configurations | seeds | rungs and failures | report, s |\n|---:|---:|---|---:|")
    for configurations, seeds, broken in ((200, 5, False), (500, 2, True)):
        record = simulate(configurations, seeds, rungs=broken, failures=broken)
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            write_report(record, Path(folder))
            seconds = time.perf_counter() - start
        print(f"| {configurations} | {seeds} | {'yes' if broken else 'no'} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
