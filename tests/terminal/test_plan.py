from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from sweeps import study_in

from kdscale.search import CachePlan, Check, FilesPlan, Study
from kdscale.search._estimate_cost import NetworkFacts
from kdscale.terminal import plan_view

CHECK = Check(
    teacher=NetworkFacts("resnet56", 861_770, 127_000_000),
    student=NetworkFacts("resnet20", 278_324, 41_000_000),
    train_images=45_000,
    validation_images=5_000,
    student_epochs=120,
    without_rungs=240,
    teacher_epochs=24,
    cohort_size=2,
    cohort_why="resources.cohort",
    generations=1,
    cpu_hours=2.5,
    refused=(),
)


def text(study: Study, check: Check = CHECK, width: int = 80) -> str:
    file = StringIO()
    Console(file=file, width=width).print(plan_view(study, check))
    return file.getvalue()


def rows(study: Study, check: Check = CHECK) -> dict[str, str]:
    """Returns the plan's rows, each on one line."""
    lines = [line.split(maxsplit=1) for line in text(study, check, width=400).splitlines()]
    return {name: about.rstrip() for name, about in lines}


def test_a_race_says_how_many_trials_it_takes_at_least_and_at_most(tmp_path: Path) -> None:
    study = study_in(tmp_path, "++seeds={n: 5, policy: race}", "budget.trials=50")
    assert rows(study)["search"] == (
        "random, 10 configurations × 5 seeds = 50 trials, of which a race trains 21 to 50: no "
        "further seed for what is surely no better than another (level 5%, tolerance 0.1) + 5 "
        "undistilled, in 1 generation(s)"
    )


def test_the_plan_says_it_all(tmp_path: Path) -> None:
    study = study_in(tmp_path, "rungs.first=1", "objective.ce_weight=0.5")
    plan = rows(study)
    assert plan == {
        "study": f"tiny, in {tmp_path}/tiny",
        "data": "icons100: 45,000 training and 5,000 validation images "
        "(the test set is left for the report)",
        "augmentation": "crop after 4 pixels of padding and flip",
        "teacher": "resnet56: 861,770 parameters, 127.0 M multiply-accumulates",
        "inference": "the teacher plain or folded: measured at the study's start",
        "student": "resnet20: 278,324 parameters, 41.0 M multiply-accumulates",
        "objective": "0.5 × cross-entropy + 1 × ldrld",
        "searched": "alpha, depth",
        "search": "random, 2 configurations × 2 seeds = 4 trials + 2 undistilled, in 1 "
        "generation(s)",
        "cohorts": "up to 2 trials of a seed train together (resources.cohort)",
        "epochs": "2 a trial; 120 of students in all (240 without rungs: after epoch 1 the best "
        "1/2 of 2 configurations go on, seed by seed), 24 of the teacher's passes",
        "workers": "1 per cohort, each with 1 CPU(s) and 0 GPU(s)",
        "expected": "150 min of one worker like this machine's CPU; divide by the cohorts that "
        "run at once",
    }


def test_the_teacher_cache_has_its_size(tmp_path: Path) -> None:
    cache = CachePlan(Path("c"), 45_000, 162, 400, 2_945_160_000, 1_500_000_000, 20 * 10**9)
    assert rows(study_in(tmp_path), replace(CHECK, cache=cache))["cache"] == (
        "this study fills at most 1.5 GB, all views take 2.95 GB (45,000 images × 162 views × "
        "400 B); quota 20 GB, in c"
    )
    small = replace(cache, quota_bytes=800_000_000, what_students_see="outputs rounded to fp16")
    assert rows(study_in(tmp_path), replace(CHECK, cache=small))["cache"].endswith(
        "quota 800 MB (it writes 700 MB of that, the rest stays live), in c; students see outputs "
        "rounded to fp16, which changes results"
    )
    live = replace(CHECK, cache=replace(cache, live="it is off"))
    assert rows(study_in(tmp_path), live)["cache"] == "the teacher teaches live: it is off"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("crop_padding=0", "flip"),
        ("{crop_padding: 0, flip: false}", "none"),
        ("{random_resized_crop: {}}", "a new random resized crop in each epoch and flip"),
        (
            "{random_resized_crop: {stored_crops: 4}, flip: false}",
            "one of 4 stored random resized crops in each epoch, which changes the recipe: the "
            "report says so",
        ),
    ],
)
def test_the_augmentation_is_told(given: str, words: str, tmp_path: Path) -> None:
    key = "task.data.augmentation"
    override = f"{key}={given}" if given[0] == "{" else f"{key}.{given}"
    assert rows(study_in(tmp_path, override))["augmentation"] == words


@pytest.mark.parametrize("form", ["plain", "folded"])
def test_a_given_form_is_told(form: str, tmp_path: Path) -> None:
    plan = rows(study_in(tmp_path, f"task.teacher.inference={form}"))
    assert plan["inference"].startswith(f"the teacher {form}")


def test_a_searched_weight_has_no_value_yet(tmp_path: Path) -> None:
    plan = rows(study_in(tmp_path, "weight=interval(0,2)", "ce_weight=choice(0.1,1)"))
    assert plan["objective"] == "searched × cross-entropy + searched × ldrld"


def test_what_is_not_there_is_not_said(tmp_path: Path) -> None:
    plan = rows(study_in(tmp_path, "undistilled=false"))
    assert plan["search"].endswith("= 4 trials, in 1 generation(s)")
    assert "rungs" not in plan["epochs"]
    assert "refused" not in plan


@pytest.mark.parametrize(
    ("hours", "words"),
    [(0.001, "4 s of"), (0.5, "30 min of"), (2.99, "179 min of"), (3.0, "3.0 h of")],
)
def test_the_expected_time_has_a_fitting_unit(tmp_path: Path, hours: float, words: str) -> None:
    plan = rows(study_in(tmp_path), replace(CHECK, cpu_hours=hours))
    assert plan["expected"].startswith(words)


def test_the_plan_fits_80_columns(tmp_path: Path) -> None:
    reason = "ldrld: ldrld needs at least 2 classes below the student's top depth " * 2
    shown = text(study_in(tmp_path / ("long" * 20)), replace(CHECK, refused=(reason, "[x]")))
    assert max(cell_len(line) for line in shown.splitlines()) <= 80
    assert "refused" in shown
    assert "part of the search space: [x]" in shown


def test_the_files_of_the_trials_are_counted(tmp_path: Path) -> None:
    plan = FilesPlan(trials=6, checkpoint_bytes=2_000_000, student_bytes=1_000_000)
    text = "6 checkpoints of 2 MB and as many students of 1 MB: at most 18 MB"
    assert rows(study_in(tmp_path), replace(CHECK, files=plan))["files"] == text
    limited = replace(plan, quota_bytes=10_000_000, remote="s3://bucket/a?scheme=http")
    text += "; quota 10 MB; copied to s3://bucket/a"
    assert rows(study_in(tmp_path), replace(CHECK, files=limited))["files"] == text
