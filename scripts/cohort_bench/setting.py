"""What all engines of the benchmark train: one pair, one data set, one list of configurations."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdscale.data import Icons100Spec, TaskData, load_data
from kdscale.models import Network, create_model

BATCH_SIZE = 64
SEED = 0
RECIPE = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


@dataclass(frozen=True)
class Setting:
    """One pair of networks and the length of a trial.

    Attributes:
        teacher: The teacher's name in the zoo.
        student: The student's name in the zoo.
        steps: Steps of a trial, one epoch.
        channels_last: Whether kdscale's loop (cohorts and K = 1) uses this memory format.
    """

    teacher: str
    student: str
    steps: int
    channels_last: bool

    @staticmethod
    def of(options: argparse.Namespace) -> Setting:
        """Returns the setting that the command line asks for."""
        return Setting(options.teacher, options.student, options.steps, options.channels_last)

    def data(self) -> TaskData:
        """Returns icons100 with as many training images as the steps take."""
        return load_data(Icons100Spec(train_images=self.steps * BATCH_SIZE))

    def teacher_network(self, data: TaskData) -> Network:
        """Returns the teacher in eval mode, with weights of its initialisation."""
        size = data.image_size
        network = create_model(self.teacher, data.num_classes, image_size=size, seed=SEED)
        return network.eval().requires_grad_(False)

    def student_network(self, data: TaskData) -> Network:
        """Returns a student."""
        size = data.image_size
        return create_model(self.student, data.num_classes, image_size=size, seed=SEED)


def configuration(number: int) -> dict[str, Any]:
    """Returns a trial's point in alpha, beta, depth and temperature, by the ranges of the paper."""
    draw = random.Random(number)
    return {
        "alpha": draw.uniform(4, 12),
        "beta": draw.uniform(0.025, 9),
        "depth": draw.choice([3, 5, 7, 9]),
        "temperature": float(draw.choice([1, 2, 4, 8])),
    }


def study_file(setting: Setting, trials: int, cohort: int, folder: Path) -> str:
    """Returns a study of so many trials as YAML, its teacher's weights already in the folder."""
    return f"""name: bench
task:
  data: {{name: icons100, train_images: {setting.steps * BATCH_SIZE}}}
  teacher: {{model: {setting.teacher}, weights: {teacher_file(folder)}}}
  student: {{model: {setting.student}}}
  recipe:
    {{batch_size: {BATCH_SIZE}, lr: {RECIPE["lr"]}, weight_decay: {RECIPE["weight_decay"]},
      channels_last: {str(setting.channels_last).lower()}}}
objective:
  methods: [{{method: ldrld}}]
parameters:
  alpha: {{min: 4, max: 12}}
  beta: {{min: 0.025, max: 9}}
  depth: {{values: [3, 5, 7, 9]}}
  temperature: {{values: [1, 2, 4, 8]}}
search: {{method: random, seed: 0}}
metric: {{name: val_accuracy, goal: maximize}}
seeds: 1
budget: {{trials: {trials}, epochs: 1}}
resources: {{workers: 1, cpus_per_worker: 1, cohort: {cohort}}}
tracking: {{mlflow: false}}
storage: {{folder: {folder / "studies"}}}
undistilled: false
"""


def teacher_file(folder: Path) -> Path:
    """Returns where the teacher's weights lie."""
    return folder / "teacher.pt"


def save_teacher(setting: Setting, folder: Path) -> None:
    """Writes the teacher's weights."""
    network = setting.teacher_network(setting.data())
    torch.save(network.state_dict(), teacher_file(folder))
