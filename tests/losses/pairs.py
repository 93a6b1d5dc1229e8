"""Pairs of networks that are only shapes, and batches of random outputs for any method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import METHODS, Batch, Method, PairShapes, Term
from kdscale.outputs import Affine, Need, Outputs, OutputShapes, numbers_of
from kdscale.records import Value

CLASSES = 10
BATCH_SIZE = 8
IMAGES = 32
CNN = OutputShapes(
    CLASSES,
    6,
    stages=((3, 8, 8), (4, 8, 8), (5, 4, 4), (6, 4, 4)),
    stem=1,
    map=(6, 4, 4),
    linear=True,
    preactivations=True,
    norms=True,
    tail=True,
)
WIDER = replace(
    CNN, embedding=8, stages=((4, 8, 8), (6, 8, 8), (7, 4, 4), (8, 4, 4)), map=(8, 4, 4)
)
DENSE = OutputShapes(5, 6, stages=((4, 8, 8), (6, 4, 6)), map=(6, 4, 6), linear=True, dense=True)
WIDER_DENSE = replace(DENSE, embedding=8, stages=((5, 8, 8), (8, 4, 6)), map=(8, 4, 6))

SMALL: Mapping[str, Mapping[str, Value]] = {
    "attnfd": {"stages": "all"},
    "crd": {"negatives": 12},
    "ldrld": {"depth": 4},
}
"""Hyperparameters that make a method's defaults fit these shapes."""


def shapes_for(method: Method, batch_size: int = BATCH_SIZE) -> PairShapes:
    """Returns the small pair that a method is tried on."""
    labels = torch.arange(IMAGES) % CLASSES
    student, teacher = (DENSE, WIDER_DENSE) if method.dense else (CNN, WIDER)
    if method.student == "simkd":  # its student puts out the teacher's kind of map
        student = replace(student, map=teacher.map, embedding=teacher.embedding)
    if method.student == "norm":
        assert teacher.map is not None
        copies = int(hyperparameters_for(method)["copies"])
        student = replace(student, map=(copies * teacher.map[0], *teacher.map[1:]))
    return PairShapes(student, teacher, batch_size, labels)


def hyperparameters_for(method: Method, **given: Value) -> dict[str, Value]:
    """Returns complete hyperparameters that fit the small pair."""
    return method.complete({**SMALL.get(method.name, {}), **given})


@dataclass
class Trial:
    """One method, built, with random outputs of the two networks.

    Attributes:
        method: The method.
        shapes: The pair.
        term: The built term.
        batch: A batch of random outputs; the student's parts require gradients.
        parts: The student's parts that require gradients.
    """

    method: Method
    shapes: PairShapes
    term: Term
    batch: Batch
    parts: list[Tensor]


def trial_of(
    name: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, **given: Value
) -> Trial:
    """Returns a method with random inputs: what it declared among its needs, and no more."""
    method = METHODS[name]
    shapes = shapes_for(method)
    hyperparameters = hyperparameters_for(method, **given)
    assert method.refuse(shapes, hyperparameters) == ""
    torch.manual_seed(seed)
    term = method.build(shapes, hyperparameters)
    if isinstance(term, torch.nn.Module):
        term.to(dtype)
    needs = method.needs(shapes, hyperparameters)
    generator = torch.Generator().manual_seed(seed + 1)
    batch_size = shapes.batch_size
    if method.dense:
        height, width = DENSE.stages[0][1:]
        target = torch.randint(-1, CLASSES // 2, (batch_size, height, width), generator=generator)
    else:
        target = torch.arange(batch_size) % CLASSES
    batch = Batch(
        random_outputs(shapes.student, needs.student, batch_size, generator, dtype),
        random_outputs(shapes.teacher, needs.teacher, batch_size, generator, dtype),
        target,
        index=torch.randperm(IMAGES, generator=generator)[:batch_size],
        epoch=5,
        epochs=240,
        key=seed + 2,
    )
    if not method.dense:
        assert batch.index is not None
        assert shapes.train_labels is not None
        batch = replace(batch, target=shapes.train_labels[batch.index])
    if needs.second_view:
        batch = replace(
            batch,
            student_2=random_outputs(shapes.student, needs.student, batch_size, generator, dtype),
            teacher_2=random_outputs(shapes.teacher, needs.teacher, batch_size, generator, dtype),
        )
    parts = [*parts_of(batch.student)]
    if batch.student_2 is not None:
        parts += parts_of(batch.student_2)
    for part in parts:
        part.requires_grad_()
    return Trial(method, shapes, term, batch, parts)


def random_outputs(
    shapes: OutputShapes,
    needs: frozenset[Need],
    batch_size: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Outputs:
    """Returns random outputs with the parts that are needed, and logits always."""

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator, dtype=dtype)

    grid = shapes.map[1:] if shapes.map is not None else (4, 4)
    stages = {k: draw(batch_size, *shapes.stages[k]) for k in sorted(numbers_of("stage", needs))}
    before = sorted(numbers_of("preactivation", needs))
    tail = draw(sum(channels for channels, _, _ in shapes.stages), shapes.classes, scale=0.3)

    def run_tail(number: int, features: Tensor) -> Outputs:
        later: dict[int, Tensor] = {}
        for k in range(number + 1, len(shapes.stages)):
            channels, *size = shapes.stages[k]
            generator = torch.Generator().manual_seed(k)
            weight = torch.randn(channels, features.shape[1], 1, 1, generator=generator)
            features = F.conv2d(F.adaptive_avg_pool2d(features, size), weight.to(features)).tanh()
            later[k] = features
        return Outputs(features.mean((2, 3)) @ tail[: features.shape[1]].to(features), stages=later)

    return Outputs(
        logits=draw(batch_size, shapes.classes, *(grid if shapes.dense else ()), scale=3.0),
        embedding=draw(batch_size, shapes.embedding) if "embedding" in needs else None,
        map=draw(batch_size, *shapes.map) if shapes.map and "map" in needs else None,
        class_maps=draw(batch_size, shapes.classes, *grid) if "class_maps" in needs else None,
        # Stage features of networks come out of a ReLU, mostly.
        stages={k: stage.relu() + 0.1 * stage for k, stage in stages.items()},
        preactivations={k: draw(batch_size, *shapes.stages[k]) for k in before},
        norms={
            k: Affine(draw(shapes.stages[k][0]), draw(shapes.stages[k][0], scale=0.3))
            for k in before
        },
        classifier=(
            Affine(draw(shapes.classes, shapes.embedding), draw(shapes.classes))
            if "classifier" in needs
            else None
        ),
        tail=run_tail if "tail" in needs else None,
    )


def parts_of(outputs: Outputs) -> list[Tensor]:
    """Returns the tensors of a batch's outputs, in a fixed order."""
    optional = (outputs.embedding, outputs.map, outputs.class_maps)
    return [
        outputs.logits,
        *(part for part in optional if part is not None),
        *outputs.stages.values(),
        *outputs.preactivations.values(),
    ]


def with_parts(batch: Batch, parts: list[Tensor]) -> Batch:
    """Returns the batch with other tensors in place of the student's, in `parts_of`'s order."""
    left = iter(parts)
    student = _refilled(batch.student, left)
    student_2 = None if batch.student_2 is None else _refilled(batch.student_2, left)
    return replace(batch, student=student, student_2=student_2)


def _refilled(outputs: Outputs, left: object) -> Outputs:
    def take(part: Tensor | None) -> Tensor | None:
        return None if part is None else next(left)  # type: ignore[call-overload, no-any-return]

    return replace(
        outputs,
        logits=take(outputs.logits),
        embedding=take(outputs.embedding),
        map=take(outputs.map),
        class_maps=take(outputs.class_maps),
        stages={k: take(part) for k, part in outputs.stages.items()},
        preactivations={k: take(part) for k, part in outputs.preactivations.items()},
    )
