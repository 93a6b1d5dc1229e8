"""A teacher's outputs as named tensors, and back: what the teacher cache keeps."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdscale.data import CacheType
from kdscale.outputs import LOGITS, Affine, Need, Outputs, OutputShapes, preactivation, stage


def kept_of(needs: frozenset[Need]) -> frozenset[Need]:
    """Returns what a cache keeps of the needs: a tail is a function, which no disk holds."""
    return (needs | LOGITS) - {"tail"}


def kept_bytes(
    shapes: OutputShapes, needs: frozenset[Need], dtype: CacheType, top_k: int | None
) -> int:
    """Returns the most bytes that a cache keeps of each (image, view).

    Args:
        shapes: The teacher's.
        needs: What methods ask of it.
        dtype: The cache's type; with fp32 a teacher in bf16 takes half of it.
        top_k: How many logits it keeps; null for all.
    """
    sizes: dict[str, tuple[int, ...]] = {
        "logits": (shapes.classes,),
        "embedding": (shapes.embedding,),
    }
    if shapes.map is not None:
        sizes |= {"map": shapes.map, "class_maps": (shapes.classes, *shapes.map[1:])}
    for number, size in enumerate(shapes.stages):
        sizes |= {stage(number): size, preactivation(number): size}
    numbers = 0
    if top_k is not None and top_k < shapes.classes:
        sizes["logits"] = (top_k + 1,)
        numbers = top_k * class_type(shapes.classes).itemsize
    values = sum(math.prod(sizes.get(need, (0,))) for need in kept_of(needs))
    return values * (2 if dtype == "fp16" else 4) + numbers


def class_type(classes: int) -> torch.dtype:
    """Returns the type that class numbers are kept in."""
    return torch.int16 if classes <= torch.iinfo(torch.int16).max else torch.int32


def parts_of(outputs: Outputs) -> dict[str, Tensor]:
    """Returns what of the outputs belongs to images, by name."""
    single = {name: getattr(outputs, name) for name in ("logits", "embedding", "map", "class_maps")}
    parts = {name: part for name, part in single.items() if part is not None}
    parts |= {f"stage {number}": part for number, part in outputs.stages.items()}
    return parts | {f"preactivation {n}": part for n, part in outputs.preactivations.items()}


def formatted(outputs: Outputs, memory_format: torch.memory_format) -> Outputs:
    """Returns the outputs with their maps in a memory format."""

    def arranged(part: Tensor) -> Tensor:
        return part.contiguous(memory_format=memory_format)

    return replace(
        outputs,
        map=None if outputs.map is None else arranged(outputs.map),
        class_maps=None if outputs.class_maps is None else arranged(outputs.class_maps),
        stages={number: arranged(part) for number, part in outputs.stages.items()},
        preactivations={n: arranged(part) for n, part in outputs.preactivations.items()},
    )


def static_of(outputs: Outputs) -> dict[str, Tensor]:
    """Returns what of the outputs belongs to the network, by name."""
    affines = {f"norm {number}": norm for number, norm in outputs.norms.items()}
    if outputs.classifier is not None:
        affines["classifier"] = outputs.classifier
    return {
        f"{name} {which}": tensor.detach().cpu().clone()
        for name, affine in affines.items()
        for which, tensor in affine._asdict().items()
    }


def assembled(parts: Mapping[str, Tensor], static: Mapping[str, Tensor]) -> Outputs:
    """Returns the outputs that parts and the header's static tensors make."""
    affines = {
        name.removesuffix(" weight"): Affine(weight, static[name.replace(" weight", " bias")])
        for name, weight in static.items()
        if name.endswith(" weight")
    }
    return Outputs(
        logits=parts["logits"],
        embedding=parts.get("embedding"),
        map=parts.get("map"),
        class_maps=parts.get("class_maps"),
        stages=_numbered("stage", parts),
        preactivations=_numbered("preactivation", parts),
        norms=_numbered("norm", affines),
        classifier=affines.get("classifier"),
    )


def _numbered(kind: str, named: Mapping[str, Any]) -> dict[int, Any]:
    start = f"{kind} "
    return {
        int(name[len(start) :]): value for name, value in named.items() if name.startswith(start)
    }


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Returns whether two tensors of one type and shape are bitwise the same."""
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def cpu_name() -> str:
    """Returns the processor: the kernels that torch chooses depend on it."""
    name = platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name} {torch.backends.cpu.get_cpu_capability()}"
