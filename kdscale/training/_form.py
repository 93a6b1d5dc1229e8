"""Which form a teacher teaches in: chosen by measuring once, and kept, for bits depend on it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdscale.data import Augmentation, TaskData, cache_key, normalise
from kdscale.models import Network, inference_form
from kdscale.outputs import LOGITS, Outputs
from kdscale.training._group import Group
from kdscale.training._spec import InferenceForm, RecipeSpec
from kdscale.training._teach import Teaching
from kdscale.training._teach_parts import parts_of

_TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest difference of an output, relative to the largest value of that output. On CPU fp32
differs by about 1e-6; there is room for a GPU's TF32."""

_LEAST_AGREEMENT = 0.9
_LARGEST_RATIO = 0.97
_FEWEST_ROUNDS = 3
_MOST_ROUNDS = 25
_ENOUGH_SECONDS = 4.0
_COMPARED_IMAGES = 16
_MOST_ROWS_ON_CPU = 32


@dataclass(frozen=True)
class FormChoice:
    """A teacher's form, and why.

    Attributes:
        form: The form.
        ratio: Seconds of the folded form by those of the plain one, the median of all rounds.
        rounds: How often both were timed, in turns.
        difference: Largest difference of an output, relative to that output's largest value.
        agreement: Share of images with the same best class.
    """

    form: InferenceForm
    ratio: float
    rounds: int
    difference: float
    agreement: float


def measured_form(
    network: Network, recipe: RecipeSpec, data: TaskData, rows: int, device: torch.device
) -> FormChoice:
    """Returns the form that is to be taken for a teacher on this device.

    It is the folded one if all that the network offers agrees with the plain form's on training
    images, to 1e-3 of each output's scale (5e-2 in bf16) and in 90% of the best classes, and if
    it takes less than 0.97 of the time.

    Args:
        network: The teacher in eval mode, in its plain form; it comes to lie on the device.
        recipe: The students' recipe.
        data: The task's data.
        rows: Images of a worker's batch.
        device: Where it is to teach.
    """
    network = network.to(device)
    group = Group(device=device)
    whole = rows if device.type == "cuda" else min(rows, _MOST_ROWS_ON_CPU)
    images = _images(data, whole, device)
    if recipe.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    folded = Teaching(inference_form(network, data.image_size), recipe, data, group)
    plain = Teaching(network, recipe, data, group)
    everything = network.offers - {"tail"}
    few = images[:_COMPARED_IMAGES]
    difference = _difference(folded.live(few, everything), plain.live(few, everything))
    best = [form.live(images, LOGITS).logits.argmax(dim=1) for form in (folded, plain)]
    agreement = (best[0] == best[1]).float().mean().item()
    ratios = _ratios(lambda: folded.live(images, LOGITS), lambda: plain.live(images, LOGITS))
    ratio = statistics.median(ratios)
    agrees = difference <= _TOLERANCE[recipe.precision] and agreement >= _LEAST_AGREEMENT
    form: InferenceForm = "folded" if agrees and ratio <= _LARGEST_RATIO else "plain"
    return FormChoice(form, round(ratio, 3), len(ratios), difference, agreement)


def form_path(
    folder: Path, identity: dict[str, str], data: TaskData, precision: str, device: torch.device
) -> Path:
    """Returns where the choice for a teacher is kept beside the caches, for all their users.

    Args:
        folder: The folder of all caches.
        identity: See `teacher_identity`.
        data: The task's data, for the image size.
        precision: The recipe's.
        device: Where it teaches.
    """
    key = cache_key(
        {
            "teacher": identity,
            "image_size": data.image_size,
            "precision": precision,
            "device": device.type,
        }
    )
    return folder / "forms" / f"{key}.json"


def settled(paths: Sequence[Path], measure: Callable[[], FormChoice]) -> FormChoice:
    """Returns the choice in the first of the files that is there, else a measured one.

    It is then in all of the files, as far as they can be written. Of several processes that
    measure at the same time the first to write the last file has chosen for all.
    """
    known = next((choice for path in paths if (choice := read_form(path)) is not None), None)
    if known is None:
        known = _kept(paths[-1], measure())
    for path in paths[:-1]:
        _kept(path, known)
    return known


def read_form(path: Path) -> FormChoice | None:
    """Returns the choice in a file; None if there is none to read."""
    try:
        return FormChoice(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _kept(path: Path, choice: FormChoice) -> FormChoice:
    """Returns the choice in a file, which is this one if there was none."""
    draft = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(asdict(choice)))
        try:
            os.link(draft, path)  # unlike a replacement, it fails where another was first
        except OSError:
            if read_form(path) is None:  # damaged, or a file system without links
                os.replace(draft, path)
        draft.unlink(missing_ok=True)
    return read_form(path) or choice


def _images(data: TaskData, rows: int, device: torch.device) -> Tensor:
    indices = torch.arange(rows) % len(data.train)
    augmentation = Augmentation(data.augmentation, data.image_size)
    raw = data.train.gather(indices).to(device)
    images = augmentation.apply(
        raw, augmentation.views(0, 1, indices).to(device), indices.to(device)
    )
    return normalise(images, data.mean, data.std)


def _difference(got: Outputs, wanted: Outputs) -> float:
    """Returns the largest difference of two outputs, each relative to its largest value."""
    pairs = [(part, parts_of(wanted)[name]) for name, part in parts_of(got).items()]
    return max(
        ((a.double() - b.double()).abs().max() / b.double().abs().max()).item() for a, b in pairs
    )


def _ratios(first: Callable[[], object], second: Callable[[], object]) -> list[float]:
    """Returns the first one's seconds by the second one's in rounds, each with another order."""
    ratios: list[float] = []
    started = time.perf_counter()
    while len(ratios) < _FEWEST_ROUNDS or (
        len(ratios) < _MOST_ROUNDS and time.perf_counter() - started < _ENOUGH_SECONDS
    ):
        order = (first, second) if len(ratios) % 2 else (second, first)
        taken = {one: _seconds(one) for one in order}
        ratios.append(taken[first] / taken[second])
    return ratios


def _seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
