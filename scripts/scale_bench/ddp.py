"""One student in kdscale's loop with one or two workers: under torchrun, or in a lane of Ray Train.

python -m scale_bench.ddp torchrun|ray WORKERS FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from kdscale.records import TrialRecord
from kdscale.search import Study, load_study
from kdscale.search._cohort_job import Job, Place, run_job, threads
from kdscale.training import Group, load_teacher, store_teacher

EPOCHS = 3
_STUDY = """name: ddp
task:
  data: {{name: icons100, train_images: 640}}
  teacher: {{model: resnet8, weights: package:icons100-resnet8, inference: plain}}
  student: {{model: resnet8}}
  recipe: {{batch_size: 64, lr: 0.05}}
objective: {{methods: [{{method: kd}}]}}
parameters: {{temperature: {{values: [4]}}}}
search: {{method: grid}}
seeds: 1
undistilled: false
budget: {{epochs: {epochs}}}
resources: {{workers: {workers}}}
tracking: {{mlflow: false}}
storage: {{folder: {folder}}}
"""


class Seconds:
    """Listens to a sweep, and keeps a trial's seconds of training by epoch."""

    def __init__(self) -> None:
        self.by_epoch: dict[int, float] = {}

    def on_change(self, trial: TrialRecord) -> None:
        """Keeps them."""
        if trial.history:
            self.by_epoch.setdefault(len(trial.history), trial.train_seconds)

    def on_teacher(self, *_: object) -> None:
        """Is of no interest."""

    on_start = on_size = on_note = on_teacher

    def trouble(self) -> str:
        """Returns nothing."""
        return ""

    @property
    def of_an_epoch(self) -> float:
        """Seconds of an epoch's steps, the first one left out."""
        return (self.by_epoch[EPOCHS] - self.by_epoch[1]) / (EPOCHS - 1)


def study_in(folder: Path, workers: int) -> Study:
    """Returns a study of one trial."""
    path = folder / "ddp.yaml"
    path.write_text(_STUDY.format(epochs=EPOCHS, workers=workers, folder=folder))
    return load_study(path)


def with_ray(workers: int, folder: Path) -> float:
    """Returns the seconds of an epoch in a sweep."""
    from kdscale.search import sweep

    listener = Seconds()
    assert sweep(study_in(folder, workers), listener).complete
    return listener.of_an_epoch


def with_torchrun(workers: int, folder: Path) -> float:
    """Returns the seconds of an epoch under torchrun, which starts this module again."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={workers}", "-m", "scale_bench.ddp", "worker", str(workers)]
    ran = subprocess.run([*command, str(folder)], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr[-3000:])
    [line] = [line for line in ran.stdout.splitlines() if line.startswith('{"seconds"')]
    return float(json.loads(line)["seconds"])


def worker(workers: int, folder: Path) -> float | None:
    """Trains as one of torchrun's workers, and returns the seconds of an epoch on the first."""
    from kdscale.data import load_data

    rank = int(os.environ["RANK"])
    folder = folder / str(rank)
    folder.mkdir(exist_ok=True)
    study = study_in(folder, workers)
    threads(study)
    if workers > 1:
        dist.init_process_group("gloo")
    data = load_data(study.task.data)
    network = load_teacher(study.task.teacher, data, study.teacher_folder)
    teacher = store_teacher(network, study.task.teacher, data.num_classes, study.folder)
    place = Place(study, study.folder.absolute(), teacher.absolute())
    job = Job("s0-1", 0, {"c000-s0": {"temperature": 4.0}}, EPOCHS)
    seconds: dict[int, float] = {}
    epoch = 0
    for progress in run_job(job, place, Group.current(torch.device("cpu"))):
        epoch += len(progress[0].rows)
        seconds[epoch] = progress[0].seconds
    if workers > 1:
        dist.destroy_process_group()
    return (seconds[EPOCHS] - seconds[1]) / (EPOCHS - 1) if rank == 0 else None


if __name__ == "__main__":
    what, workers, folder = sys.argv[1:]
    run = {"ray": with_ray, "torchrun": with_torchrun, "worker": worker}[what]
    found = run(int(workers), Path(folder))
    if found is not None:
        print(json.dumps({"seconds": found}))
