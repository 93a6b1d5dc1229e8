"""Plain Ray Tune, one process a trial: our loop with K = 1, torchdistill's and mdistiller's step.

Prints each trial's seconds of training as JSON. The last two take images one by one through PIL
and torchvision's transforms, as their CIFAR recipes do, and compute LDRLD as its authors' code
does: one masked softmax over all classes for every pair of ranks. mdistiller is no package that
can be installed: its step (a distiller module that holds teacher and student and returns logits
and a dict of losses, summed) is written here after its code.

    python -m cohort_bench.solo ENGINE TRIALS TEACHER STUDENT STEPS CHANNELS_LAST IMAGES PROCESSES \
        FOLDER
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cohort_bench.setting import BATCH_SIZE, RECIPE, SEED, Setting, configuration

Run = Callable[[Setting, dict[str, Any], Path], float]


def own(setting: Setting, values: dict[str, Any], folder: Path) -> float:
    """Returns the seconds of one trial in kdscale's loop, alone."""
    from kdscale.losses import TermConfig
    from kdscale.training import Cohort, Group, Member, ModelSpec, RecipeSpec, train_cohort

    data = setting.data()
    recipe = RecipeSpec(batch_size=BATCH_SIZE, channels_last=setting.channels_last, **RECIPE)
    term = TermConfig("ldrld", "ldrld", None, values)
    member = Member("trial", 1.0, (term,), recipe, folder)
    cohort = Cohort(ModelSpec(model=setting.student), (member,), SEED, 1)
    *_, last = train_cohort(cohort, data, setting.teacher_network(data), Group())
    if last[0].status != "done":
        raise RuntimeError(last[0].reason)
    return last[0].seconds


class _Images(Dataset[tuple[Tensor, int]]):
    """Training images through PIL and torchvision's transforms."""

    def __init__(self, setting: Setting) -> None:
        from torchvision import transforms

        data = setting.data()
        indices = torch.arange(len(data.train))
        self.images = data.train.gather(indices).permute(0, 2, 3, 1).numpy()
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(data.image_size, padding=data.augmentation.crop_padding),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def authors_ldrld(
    z_s: Tensor, z_t: Tensor, *, alpha: float, beta: float, depth: int, temperature: float
) -> Tensor:
    """Returns LDRLD computed as in its authors' code."""

    def masked_kl(outside: Tensor) -> Tensor:
        p = F.softmax(z_t / temperature - 1000.0 * outside, dim=1)
        log_q = F.log_softmax(z_s / temperature - 1000.0 * outside, dim=1)
        return F.kl_div(log_q, p, reduction="sum") * temperature**2 / len(z_s)

    top = z_s.topk(depth, dim=1).indices
    groups = [*itertools.combinations(range(depth), 2), tuple(range(depth))]
    local = torch.zeros(())
    for ranks in groups:
        outside = torch.ones_like(z_t).scatter(1, top[:, list(ranks)], 0).bool()
        weight = 1.0
        if len(ranks) == 2:
            i, j = ranks[0] + 1, ranks[1] + 1
            weight = 1.0 / (1.5 + abs(i - j)) * 2.0 * math.exp(-0.05 * (i + j))
        local = local + weight * masked_kl(outside)
    inside = torch.zeros_like(z_t).scatter(1, top, 1).bool()
    return alpha * local / len(groups) + beta * masked_kl(inside)


class _Distiller(nn.Module):
    """mdistiller's shape of a method: teacher and student inside, logits and losses out."""

    def __init__(self, student: nn.Module, teacher: nn.Module, values: dict[str, Any]) -> None:
        super().__init__()
        self.student, self.teacher, self.values = student, teacher, values

    def train(self, mode: bool = True) -> _Distiller:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, image: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.student(image)
        with torch.no_grad():
            logits_teacher = self.teacher(image)
        kd = authors_ldrld(logits, logits_teacher, **self.values)
        return logits, {"loss_ce": F.cross_entropy(logits, target), "loss_kd": kd}


def mdistiller(setting: Setting, values: dict[str, Any], folder: Path) -> float:
    """Returns the seconds of one trial in mdistiller's step, written after its trainer."""
    data = setting.data()
    pair = setting.student_network(data), setting.teacher_network(data)
    distiller = _Distiller(*pair, values).train()
    optimizer = torch.optim.SGD(distiller.student.parameters(), **RECIPE)
    loader = DataLoader(_Images(setting), BATCH_SIZE, shuffle=True, num_workers=0)
    started = time.perf_counter()
    for image, target in loader:
        optimizer.zero_grad()
        logits, losses = distiller(image.float(), target)
        loss = sum(one.mean() for one in losses.values())
        loss.backward()
        optimizer.step()
        # Its trainer takes loss and top-1, top-5 of every step to the host.
        loss.item()
        top = logits.topk(5, 1).indices.t()
        hits = top.eq(target.view(1, -1).expand_as(top))
        hits[:1].sum().item(), hits[:5].sum().item()
    return time.perf_counter() - started


def torchdistill(setting: Setting, values: dict[str, Any], folder: Path) -> float:
    """Returns the seconds of one trial in torchdistill's distillation box."""
    from torchdistill.core.distillation import DistillationBox
    from torchdistill.losses.registry import register_mid_level_loss

    class AuthorsLdrld(nn.Module):
        def forward(self, student: Any, teacher: Any, targets: Tensor) -> Tensor:
            z_s, z_t = student["."]["output"], teacher["."]["output"]
            return F.cross_entropy(z_s, targets) + authors_ldrld(z_s, z_t, **values)

    register_mid_level_loss(AuthorsLdrld)
    data = setting.data()
    loader = {"dataset_id": "train", "kwargs": {"batch_size": BATCH_SIZE, "num_workers": 0}}
    loader["sampler"] = {"class_or_func": torch.utils.data.RandomSampler, "kwargs": {}}
    term = {"criterion": {"key": "AuthorsLdrld", "kwargs": {}}, "weight": 1.0}
    own_output = {"forward_proc": "forward_batch_only", "sequential": []}
    config = {
        "num_epochs": 1,
        "train_data_loader": loader,
        "teacher": {**own_output, "requires_grad": False},
        "student": {**own_output, "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": dict(RECIPE)},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"ldrld": term}}},
    }
    box = DistillationBox(
        setting.teacher_network(data),
        setting.student_network(data),
        {"train": _Images(setting)},
        config,
        torch.device("cpu"),
        None,
        False,
        1,
    )
    box.teacher_model.eval()
    box.pre_epoch_process(epoch=0)
    started = time.perf_counter()
    for batch, targets, supplement in box.train_data_loader:
        loss = box.forward_process(batch, targets, supplement)
        box.post_forward_process(loss=loss)
        loss.item()  # as its examples log every step
    return time.perf_counter() - started


ENGINES: dict[str, Run] = {"own": own, "torchdistill": torchdistill, "mdistiller": mdistiller}


def seconds_of_trials(
    engine: str, trials: int, setting: Setting, processes: int, folder: Path
) -> Iterator[float]:
    """Yields the seconds of each trial, run by plain Ray Tune."""
    import ray
    from ray import tune

    from kdscale.training import keep_freed_memory

    def train(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        if engine == "own":
            keep_freed_memory()
        place = folder / str(config["number"])
        values = configuration(config["number"])
        tune.report({"seconds": ENGINES[engine](setting, values, place)})

    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        num_cpus=processes,
        runtime_env={"env_vars": {"PYTHONPATH": ":".join(filter(None, sys.path))}},
    )
    tuner = tune.Tuner(
        tune.with_resources(train, {"CPU": 1}),
        param_space={"number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=processes),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    )
    for result in tuner.fit():
        if result.error:
            raise result.error
        yield result.metrics["seconds"]


def main() -> None:
    engine, trials, teacher, student, steps, channels_last, images, processes, folder = sys.argv[1:]
    setting = Setting(teacher, student, int(steps), channels_last == "True", images)
    seconds = seconds_of_trials(engine, int(trials), setting, int(processes), Path(folder))
    print("seconds", json.dumps(list(seconds)), flush=True)


if __name__ == "__main__":
    main()
