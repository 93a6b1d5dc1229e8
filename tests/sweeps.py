"""A tiny study, and sweeps of it that train nothing: what a sweep records, without its work."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from kdscale.models import Network, create_model
from kdscale.search import Listener, Outcome, Study, load_study, open_ledger
from kdscale.search._queue import CohortQueue
from kdscale.search._yaml import dump_yaml
from kdscale.training import Progress, content_hash, store_teacher, student_path
from kdscale.training._student import save_network

Ending = Literal["done", "stopped", "failed"]

CLASSES = 100
WIDTH = 4
DATA: dict[str, Any] = {
    "name": "tiny",
    "task": {
        "data": {"name": "icons100", "train_images": 100},
        "teacher": {"model": "resnet8", "args": {"width": WIDTH}},
        "student": {"model": "resnet8", "args": {"width": WIDTH}},
        "recipe": {"lr": 0.05, "batch_size": 32},
    },
    "objective": {"methods": [{"method": "ldrld", "beta": 1, "temperature": 2}]},
    "parameters": {"alpha": {"min": 2, "max": 14}, "depth": {"values": [3, 5]}},
    "search": {"method": "random"},
    "seeds": 2,
    "budget": {"trials": 4, "epochs": 2},
    "resources": {"cohort": 2},
    "tracking": {"mlflow": False},
}


def study_file(folder: Path, **sections: Any) -> Path:
    """Returns a study file in a folder, some sections of the tiny study replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(dump_yaml(copy.deepcopy(DATA) | sections))
    return path


def study_in(folder: Path, *overrides: str, **sections: Any) -> Study:
    """Returns the tiny study, kept below a folder."""
    sections = {"storage": {"folder": str(folder)}} | sections
    return load_study(study_file(folder, **sections), overrides)


def network(seed: int) -> Network:
    """Returns a network of the tiny study, with random weights."""
    return create_model("resnet8", CLASSES, args={"width": WIDTH}, seed=seed)


def write_student(study: Study, name: str, seed: int) -> Path:
    """Writes a network with random weights where a trial's student goes."""
    path = student_path(study.folder / "trials" / name)
    save_network(network(seed), study.task.student, CLASSES, path, {"trial": name})
    return path


def row(epoch: int, accuracy: float) -> dict[str, float]:
    """Returns an epoch's metrics."""
    return {
        "epoch": epoch,
        "lr": 0.05,
        "train_loss": 3.0 / epoch,
        "train_accuracy": accuracy,
        "val_accuracy": accuracy,
        "val_loss": 2.0 / epoch,
    }


class Quiet:
    """A listener that does not listen."""

    def on_teacher(self, progress: Progress) -> None: ...

    def on_start(self, ledger: Any, cohorts_at_once: int) -> None: ...

    def on_change(self, trial: Any) -> None: ...

    def on_size(self, size: Any) -> None: ...

    def on_note(self, text: str) -> None: ...

    def trouble(self) -> str:
        return ""


@dataclass(frozen=True)
class PretendSweep:
    """Stands for `kdscale.search.sweep`: the same record, with made-up numbers and no training.

    Attributes:
        endings: How each trial ends, by name; the others are done.
        students: Whether the teacher's and the students' files are there, with random weights.
        interrupt_after: Press Ctrl-C after so many cohorts.
        stop_after: Stop after so many cohorts, as a used-up budget does.
    """

    endings: Mapping[str, Ending] | None = None
    students: bool = False
    interrupt_after: int | None = None
    stop_after: int | None = None

    def __call__(self, study: Study, listener: Listener | None = None) -> Outcome:
        listener = listener or Quiet()
        ledger = open_ledger(study, create=True)
        study.folder.mkdir(parents=True, exist_ok=True)
        (study.folder / "study.yaml").write_text(study.to_yaml(place=False))
        queue = CohortQueue(ledger, on_change=listener.on_change)
        if queue.complete:
            return Outcome(ledger, trained=False, complete=True)
        if self.students:
            teacher = network(seed=99)
            store_teacher(teacher, study.task.teacher, CLASSES, study.folder)
            ledger.save_teacher(content_hash(teacher.state_dict()))
        listener.on_start(ledger, 2)
        cohorts = 0
        while (job := queue.next()) is not None:
            if cohorts == self.interrupt_after:
                raise KeyboardInterrupt
            if cohorts == self.stop_after:
                return Outcome(ledger, True, False, "budget.gpu_hours is used up")
            cohorts += 1
            for name in job.members:
                for progress in self._progress(study, name):
                    queue.report({"cohort": job.cohort, "progress": [asdict(progress)]})
            queue.finished(job.cohort)
        return Outcome(ledger, trained=True, complete=queue.complete, stopped=queue.stopped)

    def _progress(self, study: Study, name: str) -> list[Progress]:
        ending = (self.endings or {}).get(name, "done")
        epochs = study.budget.epochs if ending == "done" else 1
        accuracy = 50.0 + sum(map(ord, name)) % 10
        told = [
            Progress(name, "running", (row(epoch, accuracy * epoch / study.budget.epochs),))
            for epoch in range(1, epochs + 1)
        ]
        if self.students and ending == "done":
            write_student(study, name, seed=sum(map(ord, name)))
        reason = {"stopped": "rung at epoch 1", "failed": "error at epoch 2: [ValueError]: no"}
        return [*told, Progress(name, ending, (), reason.get(ending, ""), 1.5)]


def must_not_run(*_: object, **__: object) -> NoReturn:
    """Fails the test that calls it."""
    raise AssertionError("this must not run here")
