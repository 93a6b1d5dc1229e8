"""Teachers: found by their spelling in the study file, or trained, and kept by content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdscale.data import TaskData
from kdscale.errors import UserError, about, did_you_mean
from kdscale.files import Remote
from kdscale.models import Network, create_model, inference_form, rewrap
from kdscale.training._backup import Backup
from kdscale.training._checkpoint import load_checkpoint
from kdscale.training._cohort import Cohort, Progress, train_cohort
from kdscale.training._group import Group
from kdscale.training._spec import InferenceForm, TaskSpec, TeacherSpec
from kdscale.training._student import Member, save_network, student_path
from kdscale.training._teach import CachedTeacher

HASH_LETTERS = 16
"""Letters of a teacher's content hash that name it: 64 bits."""

_PACKAGE = "package:"
_CLOSE = 1e-3
"""Means and deviations nearer than this are one normalisation."""

_WRAPPERS = ("state", "state_dict", "model", "network")
"""Keys under which code bases keep the weights in a checkpoint (ours first)."""


def load_network(path: Path, num_classes: int, image_size: int) -> Network:
    """Returns a network that `kdscale` saved, in eval mode on the CPU.

    Raises:
        UserError: If the file is not such a checkpoint, or is of another number of classes.
    """
    saved = load_checkpoint(path)
    missing = {"model", "args", "num_classes", "state"} - set(saved)
    if missing:
        raise UserError(f"{path}: a network's file must hold {', '.join(sorted(missing))}")
    if saved["num_classes"] != num_classes:
        raise UserError(
            f"{path}: the network must have {num_classes} classes, but has {saved['num_classes']}"
        )
    network = create_model(
        saved["model"], num_classes, image_size=image_size, args=saved["args"], seed=0
    )
    if saved.get("wrapping"):
        network = rewrap(network, saved["wrapping"])
    network.load_state_dict(saved["state"])
    return network.eval()


def load_teacher(spec: TeacherSpec, data: TaskData, folder: Path) -> Network:
    """Returns the teacher in eval mode on the CPU, its parameters frozen.

    Args:
        spec: How the study file spells the teacher.
        data: The task's data, for the number of classes and the image size.
        folder: The folder of a teacher that kdscale trained; the others need none.

    Raises:
        UserError: If there are no weights, or they do not fit the model.
    """
    with about("task.teacher"):
        network = create_model(
            spec.model,
            data.num_classes,
            image_size=data.image_size,
            args=spec.args,
            pretrained=spec.weights == "timm",
            seed=0,
        )
    if spec.weights == "timm":
        _check_normalisation(spec, data)
    else:
        path = weights_path(spec, folder)
        if not path.exists():
            how = (
                "correct task.teacher.weights"
                if spec.weights
                else "`kdscale teacher STUDY` trains it"
            )
            raise UserError(
                f"{path}: the teacher's weights must exist, but there is no such file ({how})"
            )
        _load_weights(network, path)
    return network.eval().requires_grad_(False)


def weights_path(spec: TeacherSpec, folder: Path) -> Path:
    """Returns the file of the teacher's weights: in the package, the user's, or the study's own."""
    if spec.weights is None:
        return trained_teacher_path(folder)
    if not spec.weights.startswith(_PACKAGE):
        return Path(spec.weights)
    name = spec.weights.removeprefix(_PACKAGE)
    shipped = Path(str(resources.files("kdscale.models") / "weights"))
    path = shipped / f"{name}.pt"
    if not path.exists():
        known = sorted(file.stem for file in shipped.glob("*.pt"))
        raise UserError(
            f'task.teacher.weights: "{spec.weights}" must name weights that kdscale ships '
            f"({', '.join(known)}) {did_you_mean(name, known)}".rstrip()
        )
    return path


def trained_teacher_path(folder: Path) -> Path:
    """Returns the weights in the folder of a teacher that kdscale trained."""
    return student_path(folder)


def content_hash(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of weights, the same for the same weights whatever their file's name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def teacher_path(folder: Path, content_hash: str) -> Path:
    """Returns where a study keeps the teacher with these contents."""
    return folder / "teachers" / f"{content_hash[:HASH_LETTERS]}.pt"


def store_teacher(network: Network, spec: TeacherSpec, num_classes: int, folder: Path) -> Path:
    """Keeps a teacher once by content hash in the study folder, and returns the file's path.

    All trials, on whatever worker, load this one file.
    """
    path = teacher_path(folder, content_hash(network.state_dict()))
    if not path.exists():
        save_network(network, spec, num_classes, path, {"weights": spec.weights or "trained here"})
    return path


def cached_teacher(
    load: Callable[[], Network],
    spec: TeacherSpec,
    name: str,
    data: str,
    folder: Path,
    remote: Remote | None = None,
) -> CachedTeacher:
    """Returns a teacher behind its cache.

    Args:
        load: Returns the network on the group's device.
        spec: How the study file spells it, the cache included.
        name: The first letters of its content hash.
        data: The training split's fingerprint.
        folder: The folder of all caches.
        remote: The same on a remote filesystem; None for this one alone.
    """
    identity = teacher_identity(spec, name) | {"inference": spec.form}
    return CachedTeacher(load, identity, data, spec.cache, folder, remote)


def teacher_identity(spec: TeacherSpec, name: str) -> dict[str, str]:
    """Returns plain values that tell a teacher's weights and architecture from any other's.

    Args:
        spec: How the study file spells it.
        name: The first letters of its content hash.
    """
    return {
        "model": spec.model,
        "args": json.dumps(spec.args, sort_keys=True),
        "weights": name,
    }


def in_form(network: Network, form: InferenceForm, image_size: int) -> Network:
    """Returns a loaded teacher in the form in which it teaches.

    Args:
        network: The teacher in eval mode on the group's device; a form of it is a copy.
        form: The form.
        image_size: Height and width of the images in pixels.
    """
    return inference_form(network, image_size) if form == "folded" else network


def train_teacher(
    task: TaskSpec,
    data: TaskData,
    folder: Path,
    *,
    epochs: int,
    seed: int,
    group: Group,
    backup: Backup | None = None,
) -> Iterator[Progress]:
    """Yields the progress of the teacher's training, with the labels alone, epoch by epoch.

    It resumes from its checkpoint, and ends with the weights at `trained_teacher_path`.

    Args:
        task: The task; its teacher's recipe and epochs come first, then the arguments.
        data: Training and validation images.
        folder: The teacher's folder, for its checkpoint and its weights.
        epochs: Epochs, unless the teacher names its own.
        seed: Fixes initialisation, data order and augmentation.
        group: The workers.
        backup: Where checkpoint and weights go as well; None for the folder alone.
    """
    member = Member("teacher", 1.0, (), task.teacher.recipe or task.recipe, folder)
    cohort = Cohort(task.teacher, (member,), seed, task.teacher.epochs or epochs)
    for progress in train_cohort(cohort, data, None, group, backup):
        yield progress[0]


def _check_normalisation(spec: TeacherSpec, data: TaskData) -> None:
    """Refuses images normalised otherwise than timm's weights were trained with.

    A teacher that sees them is worse than it is, and nothing else would show it.
    """
    import timm  # takes seconds: only for timm's weights

    wanted = timm.get_pretrained_cfg(spec.model.removeprefix("timm/"))
    pairs = [*zip(data.mean, wanted.mean, strict=True), *zip(data.std, wanted.std, strict=True)]
    if any(abs(have - want) > _CLOSE for have, want in pairs):
        raise UserError(
            f"task.teacher.weights: timm's {spec.model} takes images normalised with mean "
            f"{list(wanted.mean)} and std {list(wanted.std)}, but task.data has {list(data.mean)} "
            f"and {list(data.std)} (image_folder takes mean: and std:)"
        )


def _load_weights(network: Network, path: Path) -> None:
    state = _find_state(load_checkpoint(path))
    wanted = network.state_dict()
    if not set(state) & set(wanted) and _shapes(state) == _shapes(wanted):
        # RepDistiller's and mdistiller's: the zoo's tensors in the zoo's order, by other names.
        state = dict(zip(wanted, state.values(), strict=True))
    absent = sorted(set(wanted) - set(state))
    unknown = sorted(set(state) - set(wanted))
    other = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if absent or unknown or other:
        parts = [
            f"{what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            for what, names in (("absent", absent), ("unknown", unknown), ("shape", other))
            if names
        ]
        raise UserError(f"{path}: the weights must fit the teacher's model; {'; '.join(parts)}")
    network.load_state_dict(state)


def _shapes(state: Mapping[str, Any]) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in state.values() if isinstance(value, Tensor)]


def _find_state(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the weights in a checkpoint of ours, timm, RepDistiller, mdistiller or DDP."""
    for key in _WRAPPERS:
        if isinstance(saved.get(key), dict):
            saved = saved[key]
            break
    return {name.removeprefix("module."): value for name, value in saved.items()}
