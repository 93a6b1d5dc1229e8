"""The final evaluation, with real students that nobody trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sweeps import network, study_in, write_student

from kdscale.analysis import best_configuration, final_evaluation
from kdscale.data import load_data, load_test, normalise
from kdscale.errors import UserError
from kdscale.records import FinalEvaluation, StudyRecord, TrialRecord
from kdscale.search import Study
from kdscale.training import load_network, store_teacher

from . import studies

Reads = SimpleNamespace
Made = tuple[Study, StudyRecord, Path]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Returns what counts how often the test set is opened."""
    reads = SimpleNamespace(count=0)

    def counted(spec: object) -> object:
        reads.count += 1
        return load_test(spec)  # type: ignore[arg-type]

    monkeypatch.setattr("kdscale.analysis._final.load_test", counted)
    return reads


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Returns a study of two configurations, of which the second is better, with all files."""
    study = study_in(tmp_path)
    trials = [
        trial(study, number, configuration, seed, value)
        for number, (configuration, seed, value) in enumerate(
            [(0, 0, 60.0), (0, 1, 61.0), (1, 0, 62.0), (1, 1, 63.0)]
        )
    ]
    controls = [trial(study, seed, None, seed, 50.0) for seed in (0, 1)]
    teacher = store_teacher(network(seed=99), study.task.teacher, 100, study.folder)
    return study, studies.study(trials, controls, folder=study.folder), teacher


def trial(
    study: Study, number: int, configuration: int | None, seed: int, value: float
) -> TrialRecord:
    record = studies.trial(number, configuration, seed, value, parameters={"alpha": 1.0})
    write_student(study, record.name, seed=sum(map(ord, record.name)))
    return replace(record, student=f"trials/{record.name}/student.pt")


def accuracies(study: Study, paths: Iterable[Path]) -> list[float]:
    """Returns test accuracies, image by image."""
    data, test = load_data(study.task.data), load_test(study.task.data)
    images = normalise(test.gather(torch.arange(len(test))), data.mean, data.std)
    found = []
    for path in paths:
        with torch.no_grad():
            hits = load_network(path, 100, 32)(images).argmax(dim=1).eq(test.labels)
        found.append(100.0 * sum(map(bool, hits)) / len(test))
    return found


def table(final: FinalEvaluation | None) -> dict[str, dict[int, float]]:
    assert final is not None
    return {scores.label: dict(scores.accuracies) for scores in final.scores}


def test_the_accuracies_are_those_of_the_files(made: Made, reads: Reads) -> None:
    study, record, teacher = made
    final = final_evaluation(record, study.task, teacher)
    assert final is not None
    assert (final.configuration, final.reads, reads.count) == (1, 1, 1)
    assert final.test_images == len(load_test(study.task.data)) == 1397
    trials = study.folder / "trials"
    names = ["undistilled-s0", "undistilled-s1", "c001-s0", "c001-s1"]
    expected = accuracies(study, [teacher, *(trials / name / "student.pt" for name in names)])
    found = table(final)
    assert list(found) == ["teacher", "undistilled student", "distilled student"]
    assert found["teacher"] == {-1: pytest.approx(expected[0])}
    assert found["undistilled student"] == pytest.approx({0: expected[1], 1: expected[2]})
    assert found["distilled student"] == pytest.approx({0: expected[3], 1: expected[4]})
    assert len(set(expected)) > 1  # or the test would not tell networks apart


def test_the_test_set_is_read_once(made: Made, reads: Reads) -> None:
    study, record, teacher = made
    final = final_evaluation(record, study.task, teacher)
    for _ in range(3):
        assert final_evaluation(replace(record, final=final), study.task, teacher) is final
    assert reads.count == 1
    # Trials that change nothing about the choice do not read it either.
    worse = trial(study, 4, 2, 0, 10.0)
    grown = replace(record, trials=(*record.trials, worse), final=final)
    assert final_evaluation(grown, study.task, teacher) is final
    assert reads.count == 1


def test_another_choice_reads_it_again_and_says_so(made: Made, reads: Reads) -> None:
    study, record, teacher = made
    final = final_evaluation(record, study.task, teacher)
    better = [trial(study, 4 + seed, 2, seed, 70.0) for seed in (0, 1)]
    grown = replace(record, trials=(*record.trials, *better), final=final)
    assert getattr(best_configuration(grown), "number", None) == 2
    second = final_evaluation(grown, study.task, teacher)
    assert second is not None
    assert (second.configuration, second.reads, reads.count) == (2, 2, 2)
    assert table(second)["undistilled student"] == table(final)["undistilled student"]


def test_more_seeds_of_the_same_choice_read_it_again(made: Made, reads: Reads) -> None:
    study, record, teacher = made
    final = final_evaluation(record, study.task, teacher)
    more = trial(study, 6, 1, 2, 64.0)
    grown = replace(record, trials=(*record.trials, more), final=final)
    second = final_evaluation(grown, study.task, teacher)
    assert second is not None
    assert (second.configuration, second.reads, reads.count) == (1, 2, 2)
    assert set(table(second)["distilled student"]) == {0, 1, 2}
    late_control = trial(study, 2, None, 2, 50.0)
    grown = replace(grown, controls=(*grown.controls, late_control), final=second)
    third = final_evaluation(grown, study.task, teacher)
    assert third is not None
    assert (third.reads, reads.count) == (3, 3)


def test_students_that_did_not_train_to_the_end_are_left_out(made: Made, reads: Reads) -> None:
    study, record, teacher = made
    trials = [
        replace(one, state="pruned") if one.name == "c001-s1" else one for one in record.trials
    ]
    trials = [replace(one, state="failed") if one.name == "c000-s0" else one for one in trials]
    final = final_evaluation(replace(record, trials=tuple(trials)), study.task, teacher)
    assert set(table(final)["distilled student"]) == {0}
    assert set(table(final)["undistilled student"]) == {0, 1}


def test_without_controls_there_is_no_undistilled_student(made: Made, reads: Reads) -> None:
    study, record, teacher = made
    record = replace(record, controls=())
    final = final_evaluation(record, study.task, teacher)
    assert table(final)["undistilled student"] == {}
    assert final_evaluation(replace(record, final=final), study.task, teacher) is final
    assert reads.count == 1


def test_nothing_chosen_nothing_read(made: Made, reads: Reads) -> None:
    study, record, teacher = made
    waiting = [replace(one, state="running", value=None) for one in record.trials]
    record = replace(record, trials=tuple(waiting))
    assert final_evaluation(record, study.task, teacher) is None
    assert reads.count == 0


def test_a_students_file_that_is_gone(made: Made, reads: Reads) -> None:
    study, record, teacher = made
    (study.folder / "trials/c001-s0/student.pt").unlink()
    with pytest.raises(UserError, match=r"c001-s0/student\.pt"):
        final_evaluation(record, study.task, teacher)
