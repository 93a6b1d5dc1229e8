"""A sweep in a process of its own, which can be killed: prints a line for every change."""

from __future__ import annotations

import sys
from pathlib import Path

from kdscale.records import TrialRecord
from kdscale.search import CohortSize, Ledger, load_study, sweep
from kdscale.training import Progress


class Printer:
    def on_teacher(self, progress: Progress) -> None:
        print("teacher", progress.status, flush=True)

    def on_start(self, ledger: Ledger, cohorts_at_once: int) -> None:
        print("start", cohorts_at_once, flush=True)

    def on_change(self, trial: TrialRecord) -> None:
        print(trial.name, trial.state, len(trial.history), flush=True)

    def on_size(self, size: CohortSize) -> None:
        print("size", size.size, flush=True)

    def on_note(self, text: str) -> None:
        print("note", text, flush=True)

    def trouble(self) -> str:
        return ""


if __name__ == "__main__":
    outcome = sweep(load_study(Path(sys.argv[1])), Printer())
    print("complete" if outcome.complete else "incomplete", flush=True)
