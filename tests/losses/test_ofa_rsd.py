from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from kdscale.losses import METHODS, Objective, PairShapes, TermConfig, rsd
from kdscale.outputs import OutputShapes

from .pairs import CNN, WIDER, random_outputs, trial_of


def test_table_6_puts_rsd_on_every_stage_and_the_final_logits() -> None:
    trial = trial_of("ofa_rsd", kappa=0.05)
    assert isinstance(trial.term, nn.Module)
    student, z_t = trial.batch.student, trial.batch.teacher.logits
    stages = trial.term.get_submodule("projectors")(student)
    assert len(stages) == 3
    expected = 0.1 * sum(rsd(z_s, z_t, kappa=0.05) for z_s in (*stages, student.logits))
    torch.testing.assert_close(trial.term(trial.batch), expected)


def test_table_7_leaves_the_final_logits_to_the_embedding_form() -> None:
    trial = trial_of("ofa_rsd", stages="2 3", final=False)
    assert isinstance(trial.term, nn.Module)
    student, z_t = trial.batch.student, trial.batch.teacher.logits
    stages = trial.term.get_submodule("projectors")(student)
    assert len(stages) == 2
    expected = 0.1 * sum(rsd(z_s, z_t, kappa=0.01) for z_s in stages)
    torch.testing.assert_close(trial.term(trial.batch), expected)


def test_table_7_as_an_objective() -> None:
    terms = [
        TermConfig("embedding", "rsd"),
        TermConfig("stages", "ofa_rsd", hyperparameters={"stages": "last", "final": False}),
    ]
    objective = Objective(1.0, 0.0, terms, PairShapes(CNN, WIDER, 8), seed=0)
    assert objective.student_needs == {"logits", "embedding", "stage 3"}
    assert objective.teacher_needs == {"logits", "embedding"}
    generator = torch.Generator().manual_seed(0)
    student = random_outputs(CNN, objective.student_needs, 8, generator, torch.float32)
    teacher = random_outputs(WIDER, objective.teacher_needs, 8, generator, torch.float32)
    values = objective(student, teacher, torch.arange(8))
    expected = values["ce"] + values["embedding"] + values["stages"]
    torch.testing.assert_close(values["loss"].detach(), expected)
    values["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_refusals() -> None:
    method = METHODS["ofa_rsd"]
    hyperparameters = method.complete({})
    shapes = PairShapes(CNN, WIDER, 8)
    assert method.refuse(shapes, hyperparameters) == ""
    tokens = OutputShapes(10, 8, stages=((8, 8, 8),) * 4)
    for student in (CNN, tokens):
        one = replace(shapes, student=student, batch_size=1)
        assert "at least 2 images" in method.refuse(one, hyperparameters)
    other = replace(shapes, teacher=replace(WIDER, classes=7))
    assert "but got 10 and 7" in method.refuse(other, hyperparameters)
