"""What all engines of the benchmark train: one pair, one data set, one list of configurations."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from kdscale.data import Icons100Spec, ImageFolderSpec, TaskData, load_data
from kdscale.models import Network, create_model

BATCH_SIZE = 64
IMAGE_SIZE = 32
SEED = 0
RECIPE: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


@dataclass(frozen=True)
class Setting:
    """One pair of networks and the length of a trial.

    Attributes:
        teacher: The teacher's name in the zoo.
        student: The student's name in the zoo.
        steps: Steps of a trial, one epoch.
        channels_last: Whether kdscale's loop (cohorts and K = 1) uses this memory format.
        images: Folder of the images, see `save_images`.
    """

    teacher: str
    student: str
    steps: int
    channels_last: bool
    images: str

    @staticmethod
    def of(options: argparse.Namespace, images: Path) -> Setting:
        """Returns the setting that the command line asks for."""
        return Setting(
            options.teacher, options.student, options.steps, options.channels_last, str(images)
        )

    def data(self) -> TaskData:
        """Returns the images that `save_images` wrote."""
        return load_data(ImageFolderSpec(root=Path(self.images), image_size=IMAGE_SIZE))

    def teacher_network(self, data: TaskData) -> Network:
        """Returns the teacher in eval mode, with weights of its initialisation."""
        size = data.image_size
        network = create_model(self.teacher, data.num_classes, image_size=size, seed=SEED)
        return network.eval().requires_grad_(False)

    def student_network(self, data: TaskData) -> Network:
        """Returns a student."""
        size = data.image_size
        return create_model(self.student, data.num_classes, image_size=size, seed=SEED)


def save_images(steps: int, folder: Path) -> None:
    """Writes icons100 with as many training images as the steps take, and few to evaluate with.

    No engine's seconds hold the evaluation, but the person who runs the benchmark waits for it.
    """
    data = load_data(Icons100Spec(train_images=steps * BATCH_SIZE))
    first = {int(label): index for index, label in enumerate(data.validation.labels)}
    for split, name, indices in (
        (data.train, "train", range(len(data.train))),
        (data.validation, "validation", first.values()),
        (data.validation, "test", first.values()),
    ):
        for index in indices:
            image = split.gather(torch.tensor([index]))[0].permute(1, 2, 0).numpy()
            label = f"{int(split.labels[index]):02d}"
            path = folder / name / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


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
  data: {{name: image_folder, root: {setting.images}, image_size: {IMAGE_SIZE}}}
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
