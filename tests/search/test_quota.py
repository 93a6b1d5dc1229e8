"""What a quota deletes, and what never."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import PretendSweep, study_in

from kdscale.analysis._summary import candidates
from kdscale.files import DISK_FULL
from kdscale.records import TrialRecord
from kdscale.search import Ledger, Study, open_ledger
from kdscale.search import _quota as module
from kdscale.search._quota import File, Quota, kept_configurations, superfluous
from kdscale.training import checkpoint_path
from kdscale.workflow import finish

FILES = st.lists(
    st.builds(
        File,
        st.integers(0, 99).map(lambda number: Path(str(number))),
        st.integers(0, 100),
        st.floats(0, 9),
        st.booleans(),
    ),
    unique_by=lambda file: file.path,
)


@given(files=FILES, quota=st.integers(0, 2000))
def test_what_goes_is_the_oldest_that_nothing_needs_and_no_more_than_it_takes(
    files: list[File], quota: int
) -> None:
    gone = superfluous(files, quota)
    left = [file for file in files if file not in gone]
    assert not any(file.needed for file in gone)
    assert all(a.time <= b.time for a in gone for b in left if not b.needed)
    used = sum(file.size_bytes for file in left)
    assert used <= quota or all(file.needed for file in left)
    if gone:
        assert used + gone[-1].size_bytes > quota


@st.composite
def trials(draw: st.DrawFn) -> list[TrialRecord]:
    states = st.sampled_from(["waiting", "running", "done", "pruned", "failed"])
    found = []
    for configuration in range(draw(st.integers(1, 5))):
        for seed in range(2):
            state: Any = draw(states)
            value = draw(st.sampled_from([1.0, 2.0, 3.0])) if state == "done" else None
            found.append(TrialRecord(len(found), configuration, seed, {}, state, value))
    return found


@given(found=trials(), count=st.integers(1, 3))
def test_the_report_s_best_stays(found: list[TrialRecord], count: int) -> None:
    kept = kept_configurations(found, "maximize", count)
    best = candidates(_record(found))
    assert {summary.number for summary in best[:count]} <= kept
    undecided = {trial.configuration for trial in found if not trial.has_ended}
    assert undecided <= kept
    decided = {trial.configuration for trial in found} - undecided
    assert len(kept & decided) <= count


def _record(found: list[TrialRecord]) -> Any:
    from kdscale.records import StudyRecord

    return StudyRecord(
        name="a",
        folder=Path(),
        metric="val_accuracy",
        goal="maximize",
        mode="last",
        epochs=2,
        seeds=(0, 1),
        rungs=(),
        parameters=(),
        study_file="",
        trials=tuple(found),
    )


def swept(folder: Path, *overrides: str, **pretended: Any) -> tuple[Study, Ledger]:
    """Returns a study that was swept in pretence, each trial's checkpoint of 1,000 bytes there."""
    study = study_in(folder, *overrides)
    ledger = PretendSweep(students=True, **pretended)(study).ledger
    for number, trial in enumerate((*ledger.trials, *ledger.controls)):
        path = checkpoint_path(study.folder / "trials" / trial.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    return study, open_ledger(study, create=False)


def names(study: Study, pattern: str) -> set[str]:
    return {path.parent.name for path in study.folder.glob(f"trials/*/{pattern}")}


def test_without_a_quota_all_stays(tmp_path: Path) -> None:
    study, ledger = swept(tmp_path)
    notes: list[str] = []
    quota = Quota(ledger, None, notes.append)
    for trial in ledger.trials:
        quota.on_change(trial)
    assert len(names(study, "checkpoint.pt")) == len(names(study, "student.pt")) == 6
    assert notes == []


def test_students_stay_and_the_report_works(tmp_path: Path) -> None:
    study, ledger = swept(tmp_path, "storage.quota=0", "storage.keep_students=1")
    notes: list[str] = []
    Quota(ledger, None, notes.append)
    assert names(study, "checkpoint.pt") == set()
    kept = names(study, "student.pt")
    assert len(kept) == 4
    assert kept >= {"undistilled-s0", "undistilled-s1"}
    assert len({name[:4] for name in kept}) == 2
    assert len(notes) == 1
    assert notes[0].startswith("storage.quota (0 B) is less than what the study needs to go on")
    _, record = finish(study, ledger)
    assert record.final is not None
    assert {trial[:4] for trial in kept} == {"undi", f"c{record.final.configuration:03d}"}


def test_checkpoints_of_trials_that_go_on_stay(tmp_path: Path) -> None:
    study, ledger = swept(tmp_path, "storage.quota=0", interrupt_after=None, stop_after=1)
    going = {t.name for t in (*ledger.trials, *ledger.controls) if not t.has_ended}
    assert going
    quota = Quota(ledger, None, lambda text: None)
    assert names(study, "checkpoint.pt") == going
    ended = ledger.end(sorted(going)[0], "failed", "no")
    quota.on_change(ended)
    assert names(study, "checkpoint.pt") == going - {ended.name}


def test_the_oldest_goes_first(tmp_path: Path) -> None:
    study, ledger = swept(tmp_path)
    students = sum(path.stat().st_size for path in study.folder.glob("trials/*/student.pt"))
    study, ledger = swept(tmp_path, f"storage.quota={students + 2500}")
    Quota(ledger, None, lambda text: None)
    assert len(names(study, "checkpoint.pt")) == 2
    assert names(study, "checkpoint.pt") == {"undistilled-s0", "undistilled-s1"}
    assert len(names(study, "student.pt")) == 6


def test_a_full_disk_takes_what_nothing_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, ledger = swept(tmp_path)
    going = ledger.begin("c000-s0", "s0-1", attempt=False)
    quota = Quota(ledger, None, lambda text: None)
    monkeypatch.setattr(module, "free_bytes", lambda folder: 0)  # as the disk says when it is full
    quota.on_change(going)
    assert len(names(study, "checkpoint.pt")) == 6
    waiting = TrialRecord(0, 0, 0, {}, "running", reason=f"/a: {DISK_FULL}", cohort="s0-1")
    quota.on_change(waiting)
    assert len(names(study, "checkpoint.pt")) < 6
    assert len(names(study, "student.pt")) == 6


def test_a_full_disk_takes_what_killed_saves_have_left(tmp_path: Path) -> None:
    study, ledger = swept(tmp_path, stop_after=1)
    going = next(trial for trial in ledger.trials if not trial.has_ended)
    ledger.begin(going.name, "s0-2", attempt=True)
    trials = study.folder / "trials"
    for name in ("c000-s0", going.name):
        (trials / name / ".checkpoint.pt.4321").write_bytes(bytes(1000))
        (trials / name / ".checkpoint.pt.uploaded").touch()
    Quota(ledger, None, lambda text: None).make_room()
    assert names(study, ".checkpoint.pt.4321") == {going.name}  # it may be saving right now
    assert names(study, ".checkpoint.pt.uploaded") == {"c000-s0", going.name}
