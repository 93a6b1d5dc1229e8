"""The one reading of the test set: teacher, undistilled student and best distilled student."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from kdscale.analysis._summary import DISTILLED, TEACHER, UNDISTILLED, best_configuration
from kdscale.data import load_data, load_test
from kdscale.models import Network, count_parameters
from kdscale.records import FinalEvaluation, FinalScores, StudyRecord, TrialRecord
from kdscale.training import TaskSpec, evaluate, load_network

TEACHER_SEED = -1
"""Stands for the seed of the teacher, which the study does not choose."""


def final_evaluation(study: StudyRecord, task: TaskSpec, teacher: Path) -> FinalEvaluation | None:
    """Returns the test-set accuracies of what the study found; reads the test set if it must.

    An evaluation of the same students that the study holds already is returned as it is: the
    test set is read once. A study that has gone on since and chose another configuration, or
    trained it under more seeds, reads it again, and the evaluation counts how often.

    Args:
        study: The study; without a configuration that has trained to the end there is nothing
            to evaluate, and None is returned.
        task: The task, for the data.
        teacher: The teacher's file.
    """
    best = best_configuration(study)
    if best is None:
        return None
    students = {
        DISTILLED: _files(study, (t for t in study.trials if t.configuration == best.number)),
        UNDISTILLED: _files(study, study.controls),
    }
    known = study.final
    if (
        known is not None
        and known.configuration == best.number
        and _seeds(known) == {label: set(files) for label, files in students.items()}
    ):
        return known
    data = load_data(task.data)
    test = load_test(task.data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def scored(label: str, files: Mapping[int, Path]) -> FinalScores:
        networks: list[Network] = [
            load_network(path, data.num_classes, data.image_size).to(device)
            for path in files.values()
        ]
        scores = evaluate(networks, test, data)
        accuracies = {seed: score.accuracy for seed, score in zip(files, scores, strict=True)}
        return FinalScores(label, accuracies, count_parameters(networks[0]) if networks else 0)

    scores = [scored(TEACHER, {TEACHER_SEED: teacher})]
    scores += [scored(label, students[label]) for label in (UNDISTILLED, DISTILLED)]
    return FinalEvaluation(
        configuration=best.number,
        scores=tuple(scores),
        reads=known.reads + 1 if known else 1,
        test_images=len(test),
    )


def _files(study: StudyRecord, trials: Iterable[TrialRecord]) -> dict[int, Path]:
    """Returns seed -> weights of the trials that trained to the last epoch, by seed."""
    found = {t.seed: study.folder / t.student for t in trials if t.state == "done" and t.student}
    return dict(sorted(found.items()))


def _seeds(final: FinalEvaluation) -> dict[str, set[int]]:
    return {s.label: set(s.accuracies) for s in final.scores if s.label != TEACHER}
