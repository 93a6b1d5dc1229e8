"""What holds for every method of the registry, each as the objective builds it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kdscale.losses import (
    METHODS,
    Batch,
    Method,
    Objective,
    TermConfig,
    common_hyperparameters,
)
from kdscale.outputs import Outputs

from .pairs import CNN, Trial, hyperparameters_for, parts_of, shapes_for, trial_of, with_parts

LATE = 100
"""An epoch after every method's own preparations (FT's paraphraser, CTKD's ramp)."""

ROW_BY_ROW_NOISE = {"cirkd_memory", "crd", "diffkd", "maskd", "mgd", "skd_holistic", "tekap"}
ORDERED = {"cc", "semckd"} | ROW_BY_ROW_NOISE
"""Methods for which the order of the batch matters, by definition or because each place in the
batch has its random numbers."""

each_method = pytest.mark.parametrize("name", METHODS)


def value_of(trial: Trial) -> Callable[..., Tensor]:
    """Returns the term as a function of the student's parts, without memory between calls."""
    if isinstance(trial.term, nn.Module):
        trial.term(trial.batch)  # CRD takes constants from its first batch

    def value(*parts: Tensor) -> Tensor:
        term = copy.deepcopy(trial.term)  # a function is its own copy
        return term(replace(with_parts(trial.batch, list(parts)), epoch=LATE))

    return value


@each_method
def test_gradients_are_those_of_the_value(name: str) -> None:
    trial = trial_of(name)
    value = value_of(trial)
    assert value(*trial.parts).shape == ()
    assert torch.autograd.gradcheck(value, tuple(trial.parts), fast_mode=True, atol=1e-4)


@each_method
def test_a_gradient_reaches_the_student(name: str) -> None:
    trial = trial_of(name)
    gradients = torch.autograd.grad(value_of(trial)(*trial.parts), trial.parts, allow_unused=True)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@each_method
def test_a_gradient_reaches_every_parameter_of_its_own(name: str) -> None:
    trial = trial_of(name)
    if not isinstance(trial.term, nn.Module):
        # Variants of these own an adaptor, but not by default.
        assert "adaptor" not in trial.method.reads or name in ("rsd", "cwd")
        return
    own = dict(trial.term.named_parameters())
    reached: set[str] = set()
    # Epochs and keys that among them take in all parts of a method that skips some.
    for epoch, key in itertools.product((1, LATE), range(4 if trial.method.skips else 1)):
        value = trial.term(replace(trial.batch, epoch=epoch, key=key))
        found = torch.autograd.grad(value, own.values(), allow_unused=True)
        reached |= {key for key, gradient in zip(own, found, strict=True) if gradient is not None}
    assert reached == {key for key, parameter in own.items() if parameter.requires_grad}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ORDERED])
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    trial = trial_of(name)
    order = torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])
    batch = trial.batch
    assert batch.index is not None
    shuffled = replace(
        batch,
        student=reordered(batch.student, order),
        teacher=reordered(batch.teacher, order),
        target=batch.target[order],
        index=batch.index[order],
        student_2=None if batch.student_2 is None else reordered(batch.student_2, order),
        teacher_2=None if batch.teacher_2 is None else reordered(batch.teacher_2, order),
    )
    other = trial_of(name)  # with a memory of its own
    torch.testing.assert_close(other.term(shuffled), trial.term(batch), rtol=1e-9, atol=1e-12)


def reordered(outputs: Outputs, order: Tensor) -> Outputs:
    left = iter([part[order] for part in parts_of(outputs)])
    return replace(
        outputs,
        logits=next(left),
        embedding=None if outputs.embedding is None else next(left),
        map=None if outputs.map is None else next(left),
        class_maps=None if outputs.class_maps is None else next(left),
        stages={k: next(left) for k in outputs.stages},
        preactivations={k: next(left) for k in outputs.preactivations},
    )


@each_method
def test_extreme_logits_and_one_hot_teachers_stay_finite(name: str) -> None:
    trial = trial_of(name, dtype=torch.float32)
    generator = torch.Generator().manual_seed(5)

    def extreme(z: Tensor) -> Tensor:
        return 1e4 * torch.randint(-1, 2, z.shape, generator=generator).to(z)

    def one_hot(z: Tensor) -> Tensor:
        return torch.zeros_like(z).scatter(1, z.argmax(1, keepdim=True), 1e4)

    for student, teacher in ((extreme, extreme), (one_hot, one_hot), (extreme, one_hot)):
        batch = with_logits(trial.batch, student, teacher)
        value = trial.term(batch)
        assert torch.isfinite(value), name
        inputs = [p for p in parts_of(batch.student) if p.requires_grad]
        for gradient in torch.autograd.grad(value, inputs, allow_unused=True):
            assert gradient is None or torch.isfinite(gradient).all(), name


def with_logits(
    batch: Batch, student: Callable[[Tensor], Tensor], teacher: Callable[[Tensor], Tensor]
) -> Batch:
    def changed(outputs: Outputs, change: Callable[[Tensor], Tensor], *, learns: bool) -> Outputs:
        parts = {"logits": outputs.logits, "class_maps": outputs.class_maps}
        new = {
            key: None if part is None else change(part.detach()).requires_grad_(learns)
            for key, part in parts.items()
        }
        return replace(outputs, **new)  # type: ignore[arg-type]

    return replace(
        batch,
        student=changed(batch.student, student, learns=True),
        teacher=changed(batch.teacher, teacher, learns=False),
        student_2=(
            None if batch.student_2 is None else changed(batch.student_2, student, learns=True)
        ),
        teacher_2=(
            None if batch.teacher_2 is None else changed(batch.teacher_2, teacher, learns=False)
        ),
    )


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].dense])
def test_autocast_changes_nothing(name: str) -> None:
    trial = trial_of(name, dtype=torch.float32)
    method = METHODS[name]
    config = TermConfig("it", name, 1.0, hyperparameters_for(method))
    values = []
    for autocast in (False, True):
        objective = Objective(1.0, 0.0, [config], trial.shapes, seed=0)
        second = None
        if trial.batch.student_2 is not None:
            second = trial.batch.student_2, trial.batch.teacher_2
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            found = objective(
                trial.batch.student,
                trial.batch.teacher,
                trial.batch.target,
                index=trial.batch.index,
                second_view=second,
            )
        assert found["it"].dtype == torch.float32
        values.append(found["it"])
    assert torch.equal(*values)


@each_method
def test_needs_are_among_what_it_reads(name: str) -> None:
    method = METHODS[name]
    shapes = shapes_for(method)
    needs = method.needs(shapes, hyperparameters_for(method))
    words = {
        "logits": "logits",
        "embedding": "embedding",
        "map": "map",
        "class_maps": "class maps",
        "classifier": "classifier",
        "tail": "tail",
    }
    kinds = {"stage": "stages", "preactivation": "pre-activations"}
    read = {words.get(need) or kinds[need.split()[0]] for need in needs.student | needs.teacher}
    # Logits are always there, so that a method need not read them.
    assert read - {"logits"} <= set(method.reads)
    assert not needs.second_view or "second view" in method.reads
    assert len(set(method.reads)) == len(method.reads)


@each_method
def test_hyperparameters_have_sound_defaults(name: str) -> None:
    method = METHODS[name]
    assert method.name == name
    for hyperparameter in method.hyperparameters:
        assert hyperparameter.broken_rule(hyperparameter.default) == ""
        assert hyperparameter.help
    names = [one.name for one in (*method.hyperparameters, *common_hyperparameters(method))]
    assert len(set(names)) == len(names)


@each_method
def test_networks_without_what_it_reads_are_refused(name: str) -> None:
    method = METHODS[name]
    hyperparameters = hyperparameters_for(method)
    shapes = shapes_for(method)
    bare = replace(
        shapes.student,
        stages=(),
        map=None,
        linear=False,
        preactivations=False,
        tail=False,
    )
    needs = method.needs(shapes, hyperparameters)
    features = {"logits", "embedding"}
    if needs.student <= features and needs.teacher <= features and not method.student:
        stripped = replace(shapes, student=bare, teacher=bare)
        assert method.refusal(stripped, hyperparameters) == ""
        return
    stripped = replace(shapes, student=bare, teacher=replace(bare, embedding=8))
    assert method.refusal(stripped, hyperparameters)


@each_method
def test_other_tasks_are_refused(name: str) -> None:
    method = METHODS[name]
    other: Method = replace(method, dense=not method.dense)
    reason = method.refusal(shapes_for(other), hyperparameters_for(method))
    assert "dense prediction" in reason or "classification" in reason


def test_the_small_pair_has_all_there_is() -> None:
    assert CNN.preactivations
    assert CNN.tail
    assert CNN.linear
    assert CNN.map is not None
