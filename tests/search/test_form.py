"""A study's teacher has one form, measured at most once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from sweeps import must_not_run, network, study_in

from kdscale.errors import UserError
from kdscale.models import Network
from kdscale.search import Study, open_ledger, single_trial, train_single
from kdscale.search import _form as form_module
from kdscale.search._cohort_job import _teacher
from kdscale.search._form import settled_by_ledger, settled_on_cluster
from kdscale.training import FormChoice, Teaching, content_hash, store_teacher

PLAIN = FormChoice("plain", 1.25, 3, 1e-6, 1.0)
FOLDED = FormChoice("folded", 0.5, 25, 1e-6, 1.0)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[FormChoice | None], None]:
    """Returns what sets the outcome of measuring; None forbids it."""

    def set_to(choice: FormChoice | None) -> None:
        measure = must_not_run if choice is None else lambda *_: choice
        monkeypatch.setattr(form_module, "measured_form", measure)

    return set_to


def study_of(folder: Path, *overrides: str) -> tuple[Study, Path]:
    """Returns the tiny study and the file of its teacher, which has random weights."""
    study = study_in(folder, *overrides)
    weights = store_teacher(network(seed=7), study.task.teacher, 100, study.folder)
    return study_in(folder, f"task.teacher.weights={weights}", *overrides), weights


def form_of(study: Study, weights: Path) -> str:
    """Returns the form that a sweep of the study takes."""
    ledger = open_ledger(study, create=True)
    ledger.save_teacher(content_hash(network(seed=7).state_dict()))
    return settled_by_ledger(study, ledger, weights).task.teacher.form


@pytest.mark.parametrize("choice", [PLAIN, FOLDED])
def test_a_study_is_measured_once_and_so_are_all_that_share_its_caches(
    choice: FormChoice, choose: Callable[[FormChoice | None], None], tmp_path: Path
) -> None:
    study, weights = study_of(tmp_path)
    choose(choice)
    assert form_of(study, weights) == choice.form
    assert open_ledger(study, create=False).form == choice
    remarks = open_ledger(study, create=False).record().remarks
    told = "it took 0.50 of the plain form's time, and its outputs differed by at most 1e-06"
    assert [told in remark for remark in remarks] == ([True] if choice is FOLDED else [])
    choose(None)
    assert form_of(study, weights) == choice.form
    other, weights = study_of(tmp_path, "name=other", "seeds=[5,6]", "alpha=interval(1,2)")
    assert form_of(other, weights) == choice.form
    assert open_ledger(other, create=False).form == choice


def test_the_ledger_comes_before_the_caches(
    choose: Callable[[FormChoice | None], None], tmp_path: Path
) -> None:
    study, weights = study_of(tmp_path)
    choose(FOLDED)
    assert form_of(study, weights) == "folded"
    for file in (study.cache_folder / "forms").iterdir():
        file.unlink()
    choose(PLAIN)
    assert form_of(study, weights) == "folded"
    elsewhere, weights = study_of(tmp_path, "name=other", "task.teacher.cache.folder=else")
    elsewhere_cache = {"folder": tmp_path / "else"}
    cache = elsewhere.task.teacher.cache.model_copy(update=elsewhere_cache)
    teacher = elsewhere.task.teacher.model_copy(update={"cache": cache})
    task = elsewhere.task.model_copy(update={"teacher": teacher})
    assert form_of(elsewhere.model_copy(update={"task": task}), weights) == "plain"


@pytest.mark.parametrize("form", ["plain", "folded"])
def test_a_form_in_the_file_is_not_measured(
    form: str, choose: Callable[[FormChoice | None], None], tmp_path: Path
) -> None:
    choose(None)
    study, weights = study_of(tmp_path, f"task.teacher.inference={form}")
    assert form_of(study, weights) == form
    assert open_ledger(study, create=False).form is None


def test_a_study_that_has_trained_keeps_its_form(tmp_path: Path) -> None:
    from sweeps import PretendSweep

    PretendSweep(students=True)(study_in(tmp_path, "task.teacher.inference=plain"))
    open_ledger(study_in(tmp_path, "task.teacher.inference=plain"), create=False)
    for other in ("auto", "folded"):
        with pytest.raises(UserError, match=rf"task\.teacher\.inference was absent, now {other}"):
            open_ledger(study_in(tmp_path, f"task.teacher.inference={other}"), create=False)


def test_the_form_is_no_part_of_what_trains_the_teacher(tmp_path: Path) -> None:
    folders = {
        study_in(tmp_path, f"task.teacher.inference={form}").teacher_folder for form in FORMS
    }
    assert len(folders) == 1


FORMS = ("auto", "plain", "folded")


def test_a_cohort_gets_the_teacher_in_its_form(tmp_path: Path) -> None:
    _, weights = study_of(tmp_path)
    device = torch.device("cpu")
    assert _teacher(weights, "plain", 100, 32, device).image_format is None
    assert _teacher(weights, "folded", 100, 32, device).image_format is not None


def test_filling_and_a_single_trial_settle_the_form_for_each_other(
    choose: Callable[[FormChoice | None], None], tmp_path: Path
) -> None:
    study, weights = study_of(tmp_path)
    choose(FOLDED)
    filled = settled_on_cluster(study, weights.absolute(), study.cache_folder.absolute())
    assert filled.task.teacher.form == "folded"
    choose(None)
    single = single_trial(study, 3)
    assert [part.status for part in train_single(study, single)][-1] == "done"
    assert (single.folder / "form.json").exists()
    assert form_of(study, weights) == "folded"


def test_a_single_trial_teaches_in_its_form(
    choose: Callable[[FormChoice | None], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = study_of(tmp_path, "task.teacher.cache.enabled=false")
    seen: list[Network] = []
    keep = Teaching._formatted
    monkeypatch.setattr(
        Teaching, "_formatted", lambda self, network: seen.append(network) or keep(self, network)
    )
    for choice in (FOLDED, PLAIN):  # the trial goes on as it began
        choose(choice)
        list(train_single(study, single_trial(study, 0)))
    assert [network.image_format is None for network in seen] == [False, False]
