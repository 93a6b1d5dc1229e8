from __future__ import annotations

from pathlib import Path

import pytest
from sweeps import study_in

from kdscale.errors import StudyFileError
from kdscale.search import check, open_ledger, single_trial

IMAGES = 100


def test_new_crops_in_every_epoch_are_not_cached_and_stored_ones_are(tmp_path: Path) -> None:
    crops = "task.data.augmentation.random_resized_crop"
    free = check(study_in(tmp_path, f"{crops}={{}}")).cache
    assert free is not None
    assert free.live.startswith("no view comes again (random_resized_crop.stored_crops")
    with pytest.raises(StudyFileError, match=r"crop_padding: must not be given with random_res"):
        study_in(tmp_path, f"{crops}={{}}", "task.data.augmentation.crop_padding=4")
    stored = study_in(tmp_path, f"{crops}.stored_crops=3")
    plan = check(stored).cache
    assert plan is not None
    assert (plan.views, plan.live) == (3, "")
    [remark] = open_ledger(stored, create=True).record().remarks
    assert "had 3 stored crops, of which an epoch drew one" in remark


def test_the_plan_is_arithmetic(tmp_path: Path) -> None:
    plan = check(study_in(tmp_path)).cache
    assert plan is not None
    assert (plan.images, plan.views, plan.entry_bytes) == (IMAGES, 162, 400)
    assert plan.full_bytes == IMAGES * 162 * 404
    assert plan.study_bytes == IMAGES * 2 * 2 * 8192  # two seeds, two epochs, two pages at most
    assert plan.folder == tmp_path / ".cache" / "teachers"
    half = check(study_in(tmp_path, "task.teacher.cache.dtype=fp16")).cache
    assert half is not None
    assert half.entry_bytes == 200
    few = study_in(
        tmp_path,
        "task.teacher.cache.top_k=5",
        objective={"methods": [{"method": "kd"}]},
        parameters={"temperature": {"min": 1, "max": 9}},
    )
    top = check(few).cache
    assert top is not None
    assert (top.entry_bytes, top.what_students_see) == (5 * 6 + 4, "only the 5 largest logits")
    elsewhere = study_in(tmp_path, "task.teacher.cache.folder=here")
    assert elsewhere.cache_folder == Path("here")


def test_the_cache_is_no_part_of_what_a_study_is_unless_it_rounds(tmp_path: Path) -> None:
    def folders(*overrides: str) -> tuple[Path, Path]:
        study = study_in(tmp_path, *overrides)
        return study.teacher_folder, single_trial(study, 0).folder

    plain = folders()
    assert folders("task.teacher.cache.enabled=false") == plain
    assert folders("task.teacher.cache.quota=1GB", "task.teacher.cache.folder=x") == plain
    rounded = folders("task.teacher.cache.dtype=fp16")
    assert folders("task.teacher.cache.dtype=fp16", "task.teacher.cache.quota=1GB") == rounded
    assert (rounded[0] == plain[0], rounded[1] == plain[1]) == (True, False)


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("1.5MiB", 3 * 2**19), ("7", 7), ("500 kB", 500_000)]
)
def test_a_quota_is_bytes_or_a_size(text: str, size: int, tmp_path: Path) -> None:
    study = study_in(
        tmp_path,
        f"task.teacher.cache.quota='{text}'" if " " in text else f"task.teacher.cache.quota={text}",
    )
    assert study.task.teacher.cache.quota == size


@pytest.mark.parametrize("text", ["20XB", "GB", "-1"])
def test_a_wrong_quota_is_a_rule(text: str, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"task\.teacher\.cache\.quota: must be"):
        study_in(tmp_path, f"task.teacher.cache.quota={text}")
