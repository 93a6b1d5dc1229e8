"""The command line as people meet it: what it prints, what it leaves on disk, how it ends."""

from __future__ import annotations

import errno
import io
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.cells import cell_len
from ruamel.yaml import YAML
from sweeps import PretendSweep, must_not_run, network, study_file

from kdscale import __version__, cli
from kdscale.cli import _app
from kdscale.data import load_data
from kdscale.errors import StudyFileError
from kdscale.losses import METHODS, NOT_PUBLIC
from kdscale.search import load_study, open_ledger, sweep_lock
from kdscale.training import evaluate, load_network, store_teacher

ROOT = Path(__file__).parents[1]
BROKEN = sorted((ROOT / "tests/search/broken").glob("*.yaml"))
COMMANDS = (
    "check",
    "sweep",
    "train",
    "teacher",
    "report",
    "ui",
    "submit",
    "audit",
    "methods",
    "convert-weights",
    "doctor",
)
OF_STUDIES = COMMANDS[:6]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Returns a function that runs ``kdscale`` with these words in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(_app.console, "width", 80)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kdscale", *map(str, words)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        assert isinstance(code, int)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns a function that puts a sweep without training in the place of the real one."""

    def pretend(**how: object) -> None:
        monkeypatch.setattr("kdscale.search.sweep", PretendSweep(**how))  # type: ignore[arg-type]

    return pretend


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Returns the file of a teacher with random weights."""
    study = load_study(study_file(tmp_path))
    return store_teacher(network(seed=7), study.task.teacher, 100, tmp_path / "elsewhere")


def files_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def one_line(text: str) -> str:
    return " ".join(text.split())


# Words and help


def test_version(run: Run) -> None:
    assert run("--version") == Ran(0, f"{__version__}\n", "")


def test_without_a_command_there_is_help(run: Run) -> None:
    ran = run()
    assert ran.code == 2
    for command in COMMANDS:
        assert re.search(rf"│ {command} +\w", ran.out), command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_of_80_columns(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    assert f"Usage: kdscale {command}" in ran.out
    assert max(cell_len(line) for line in ran.out.splitlines()) <= 80
    assert "[bold]" not in ran.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek"], "Did you mean 'check'?"),
        (["check"], "Missing argument 'study'"),
        (["train", "x.yaml", "--sede", "1"], "--seed"),
        (["train", "x.yaml", "--seed", "-1"], "greater than or equal to 0"),
        (["ui", "x.yaml", "--port", "70000"], "less than or equal to 65535"),
    ],
)
def test_a_mistyped_command_is_one_message(run: Run, words: list[str], message: str) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


# Study files that cannot be used


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_study_file_is_one_message(run: Run, path: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError) as error:
        load_study(path)
    ran = run("check", path)
    assert ran == Ran(2, "", f"error {error.value}\n")
    assert f"{path}:" in ran.err
    assert not files_in(tmp_path)


@pytest.mark.parametrize("command", OF_STUDIES)
def test_no_command_starts_with_a_broken_study_file(run: Run, command: str, tmp_path: Path) -> None:
    ran = run(command, BROKEN[0])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error {BROKEN[0]}:")
    assert not files_in(tmp_path)


def test_every_bad_override_is_told(run: Run, tmp_path: Path) -> None:
    path = study_file(tmp_path)
    ran = run("sweep", path, "alpha=interval(0,", "budget.epoch=3", "metric.goal=maximise")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error ")
    assert "alpha=interval(0,: must have a value" in ran.err
    assert 'budget.epoch=3: budget.epoch: must be a known key, but got 3 (did you mean "' in ran.err
    assert "metric.goal=maximise: metric.goal: must be" in ran.err
    assert files_in(tmp_path) == {Path("tiny.yaml")}


def test_square_brackets_are_no_markup(run: Run, tmp_path: Path) -> None:
    ran = run("check", study_file(tmp_path), "seeds=[red,bold]")
    assert ran.code == 2
    assert "[red,bold]" in ran.err


@pytest.mark.parametrize("command", OF_STUDIES)
def test_no_such_study(run: Run, command: str, tmp_path: Path) -> None:
    ran = run(command, "nowhere.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error nowhere.yaml: the study file must be readable")
    ran = run(command, tmp_path)
    assert ran == Ran(
        2, "", f"error {tmp_path}: must be a study file, or a study folder with study.yaml in it\n"
    )


# check


def test_check_shows_the_plan_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    ran = run("check", study_file(tmp_path), "rungs.first=1", "undistilled=false")
    assert (ran.code, ran.err) == (0, "")
    assert max(cell_len(line) for line in ran.out.splitlines()) <= 80
    text = one_line(ran.out)
    assert "study tiny, in studies/tiny" in text
    assert "icons100: 100 training and 1,225 validation images" in text
    assert "student resnet8 (width=4): " in text
    assert "random, 2 configurations × 2 seeds = 4 trials" in text
    assert "2 a trial; 6 of students in all (8 without rungs: after epoch 1 the best 1/2" in text
    assert files_in(tmp_path) == {Path("tiny.yaml")}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.data.train_images=20", "task.recipe.batch_size must be at most the number of"),
        ("task.teacher.weights=no.pt", "no.pt: the teacher's weights must exist"),
        ("task.teacher.weights='package:icons100-resnet8'", "must fit the teacher's model"),
        ("task.teacher.weights='package:icons'", "must name weights that kdscale ships"),
        ("task.data={name: cifar10, root: .}", "task.data.root must hold"),
    ],
)
def test_check_finds_what_a_sweep_would_refuse(
    run: Run, tmp_path: Path, override: str, message: str
) -> None:
    ran = run("check", study_file(tmp_path), override)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


# train


TRAIN = ("alpha=9", "depth=3", "budget.epochs=3", "--seed", "1")


def test_train_stops_on_ctrl_c_and_goes_on_where_it_stood(
    run: Run, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = "task.teacher.inference=plain"  # each of the two studies would time the forms anew
    words = (study_file(tmp_path), f"task.teacher.weights={weights}", plain, *TRAIN)
    undisturbed = run("train", *words, "storage.folder=other")
    assert (undisturbed.code, undisturbed.err) == (0, "")
    lines = undisturbed.out.splitlines()
    epoch = r"epoch +{}/3  lr 0\.\d{{4}}  train loss \d+\.\d{{3}}  validation +\d+\.\d\d%"
    assert all(re.fullmatch(epoch.format(n), line) for n, line in enumerate(lines[:3], start=1))
    student = Path(lines[3].removeprefix("student: "))
    assert len(lines) == 4

    with monkeypatch.context() as patched:
        patched.setattr("kdscale.search.train_single", _interrupted_after(1))
        stopped = run("train", *words)
    assert stopped.code == 130
    assert stopped.out.splitlines()[0] == lines[0]
    path, *overrides = words
    given = " ".join(map(str, overrides))
    assert stopped.out.endswith(f"To continue:\n  kdscale train {path} {given}\n")

    went_on = run("train", *words)
    assert (went_on.code, went_on.out.splitlines()[:3]) == (0, lines[:3])
    resumed = Path(went_on.out.splitlines()[3].removeprefix("student: "))
    assert resumed == Path("studies") / student.relative_to("other")
    _assert_same_weights(resumed, student)

    with monkeypatch.context() as patched:
        patched.setattr("kdscale.training._student.Student.step", must_not_run)
        assert run("train", *words) == went_on  # it has ended: nothing is trained again


def _interrupted_after(epochs: int) -> Callable[..., object]:
    from kdscale.search import train_single

    def train(*arguments: object) -> object:
        told = 0
        for progress in train_single(*arguments):  # type: ignore[arg-type]
            yield progress
            told += len(progress.rows)
            if told >= epochs:
                raise KeyboardInterrupt

    return train


def _assert_same_weights(path: Path, other: Path) -> None:
    states = [load_network(file, 100, 32).state_dict() for file in (path, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_train_says_what_it_takes_for_searched_parameters(
    run: Run, tmp_path: Path, weights: Path
) -> None:
    words = ("train", study_file(tmp_path), f"task.teacher.weights={weights}", "budget.epochs=1")
    ran = run(*words, "depth=5")
    assert ran.out.splitlines()[0] == "not given, so at their defaults: alpha = 10.5"
    baseline = run(*words, "search.baseline={alpha: 3, depth: 5}")
    assert baseline.out.splitlines()[0] == "not given, so at their defaults: alpha = 3, depth = 5"


def test_train_refuses_a_pair_that_the_method_cannot_serve(
    run: Run, tmp_path: Path, weights: Path
) -> None:
    override = f"task.teacher.weights={weights}"
    ran = run("train", study_file(tmp_path), override, "depth=99", "alpha=3")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error the trial failed: ")
    assert "classes must be >= depth + 2" in ran.err


def test_train_wants_its_teacher(run: Run, tmp_path: Path) -> None:
    ran = run("train", study_file(tmp_path), "alpha=3", "depth=3")
    assert (ran.code, ran.out) == (2, "")
    assert "`kdscale teacher STUDY` trains it" in ran.err


# teacher


def test_teacher_trains_then_is_scored(run: Run, tmp_path: Path) -> None:
    path = study_file(tmp_path)
    words = ("task.teacher.epochs=2", "--output", "weights/tiny.pt")
    ran = run("teacher", path, *words)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.split("  lr ")[0] for line in lines[:2]] == ["epoch   1/2", "epoch   2/2"]
    assert lines[3:] == ["weights: weights/tiny.pt"]

    data = load_data(load_study(path).task.data)
    network = load_network(tmp_path / "weights/tiny.pt", 100, 32)
    accuracy = evaluate([network], data.validation, data)[0].accuracy
    assert lines[2] == f"resnet8: validation accuracy {accuracy:.2f}%"

    scored = run("teacher", path, "task.teacher.weights=weights/tiny.pt", "storage.folder=other")
    assert (scored.code, scored.out.splitlines()[0]) == (0, lines[2])
    assert re.fullmatch(r"weights: other/tiny/teachers/[0-9a-f]{16}\.pt", scored.out.split("\n")[1])


def test_all_views_are_for_filling_the_cache(run: Run, tmp_path: Path, weights: Path) -> None:
    words = ("teacher", study_file(tmp_path), f"task.teacher.weights={weights}", "--all-views")
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error --all-views must come with --fill-cache (add it)\n"


def test_teacher_needs_a_file_to_write_to(run: Run, tmp_path: Path, weights: Path) -> None:
    (tmp_path / "folder").mkdir()
    words = ("teacher", study_file(tmp_path), f"task.teacher.weights={weights}", "--output")
    for output in ("folder", "tiny.yaml/weights.pt"):
        ran = run(*words, output)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"error {output}: must be a file to write to")


# methods, doctor


def test_methods_are_listed_and_shown(run: Run) -> None:
    listed = run("methods")
    assert (listed.code, listed.err) == (0, "")
    assert max(cell_len(line) for line in listed.out.splitlines()) <= 80
    assert set(METHODS) <= set(listed.out.split())
    shown = run("methods", "ldrld", "rsd")
    assert (shown.code, shown.err) == (0, "")
    wanted = {one.name for name in ("ldrld", "rsd") for one in METHODS[name].hyperparameters}
    assert wanted <= set(shown.out.split())
    assert run("methods", "ldlrd").err.startswith(
        'error there is no method "ldlrd" (did you mean "ldrld"?)'
    )


def test_all_lists_what_is_not_public(run: Run) -> None:
    assert "specification not public" not in one_line(run("methods").out)
    shown = run("methods", "--all")
    assert (shown.code, shown.err) == (0, "")
    assert {row.name for row in NOT_PUBLIC} <= set(shown.out.split())


def test_weights_of_another_code_base_are_converted(run: Run) -> None:
    ran = run("convert-weights", "--from", "repdistiller", "--distill kd -r 0.1 -a 0.9 -b 0")
    assert (ran.code, ran.err) == (0, "")
    objective = YAML(typ="safe").load(ran.out)["objective"]
    assert objective["ce_weight"] == 0.1
    assert objective["methods"] == [{"method": "kd", "weight": 0.9, "temperature": 4}]
    wrong = run("convert-weights", "--from", "repdistil", "-r 1")
    assert (wrong.code, wrong.out) == (2, "")
    assert 'did you mean "repdistiller"?' in wrong.err


def test_doctor_is_content_with_this_machine(run: Run) -> None:
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, "")
    assert "✗" not in ran.out
    assert max(cell_len(line) for line in ran.out.splitlines()) <= 80


def test_doctor_finds_that_nothing_answers_where_ray_should(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    ran = run("doctor")
    assert ran.code == 1
    assert re.search(rf"✗ +Ray +RAY_ADDRESS=127\.0\.0\.1:{port}: nothing answers", ran.out)
    assert "→ start it there (ray start --head), or unset RAY_ADDRESS" in one_line(ran.out)


def test_doctor_warns_of_little_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30))
    ran = run("doctor")
    assert ran.code == 0
    assert re.search(r"! +disk +1\.0 GiB free in", ran.out)
    assert "→ checkpoints and MLflow need room" in one_line(ran.out)


# sweep, with made-up numbers in the place of training


def test_sweep_ends_with_the_answer_and_the_report(
    run: Run, tmp_path: Path, pretend: Callable[..., None]
) -> None:
    pretend(students=True)
    path = study_file(tmp_path)
    ran = run("sweep", path)
    assert (ran.code, ran.err) == (0, "")
    text = one_line(ran.out)
    assert "tiny: 2 configurations × 2 seeds = 4 trials + 2 undistilled; 2 cohort(s)" in text
    assert re.search(r"Configuration c00\d \(alpha = .*\) has the best mean validation", text)
    assert "On 1,397 test images: teacher " in text
    assert ran.out.endswith("report: studies/tiny/report.html\n")
    page = (tmp_path / "studies/tiny/report.html").read_text()
    assert all(name in page for name in ("teacher", "undistilled student", "distilled student"))

    again = run("sweep", path)
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("nothing to train: all 4 trials of tiny have ended\n")
    assert again.out.endswith("report: studies/tiny/report.html\n")


def test_ctrl_c_says_the_command_that_continues(
    run: Run, tmp_path: Path, pretend: Callable[..., None]
) -> None:
    path = study_file(tmp_path).rename(tmp_path / "my study.yaml")
    words = ("alpha=interval(0,14)", "depth=choice(3,5)", "task.data.train_images=100")
    pretend(interrupt_after=1)
    ran = run("sweep", path, *words)
    assert (ran.code, ran.err) == (130, "")
    command = f"kdscale sweep '{path}' 'alpha=interval(0,14)' 'depth=choice(3,5)' {words[2]}"
    assert ran.out.endswith(f"stopped; everything so far is kept. To continue:\n  {command}\n")
    assert "report:" not in ran.out  # and so the test set has not been read
    assert not (tmp_path / "studies/tiny/report.html").exists()

    pretend()
    assert "2 ended before" in run("sweep", path, *words).out


def test_a_used_up_budget_says_so(run: Run, tmp_path: Path, pretend: Callable[..., None]) -> None:
    pretend(stop_after=1)
    path = study_file(tmp_path)
    ran = run("sweep", path)
    assert (ran.code, ran.err) == (0, "")
    command = f"kdscale sweep {path}"
    message = f"not complete (budget.gpu_hours is used up). To continue:\n  {command}\n"
    assert message in ran.out
    assert ran.out.endswith("report: studies/tiny/report.html\n")


def test_a_study_whose_every_trial_failed_is_a_failure(
    run: Run, tmp_path: Path, pretend: Callable[..., None]
) -> None:
    names = [f"c00{number}-s{seed}" for number in range(2) for seed in range(2)]
    pretend(endings=dict.fromkeys(names, "failed"))
    ran = run("sweep", study_file(tmp_path))
    assert ran.code == 1
    assert ran.out.count("failed c00") == 4
    assert "error at epoch 2: [ValueError]: no" in ran.out
    pretend(endings=dict.fromkeys(names[:3], "failed"))
    assert run("sweep", study_file(tmp_path, name="other")).code == 0


def test_what_mlflow_lacks_is_said(
    run: Run, tmp_path: Path, pretend: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdscale.workflow.TrackedView.close", lambda view: "MLflow [is] away")
    pretend()
    ran = run("sweep", study_file(tmp_path))
    assert (ran.code, ran.err) == (0, "MLflow [is] away\n")


# sweep --fresh


@pytest.fixture
def swept(run: Run, tmp_path: Path, pretend: Callable[..., None]) -> Path:
    """Returns the file of a study that has been swept."""
    pretend()
    path = study_file(tmp_path)
    assert run("sweep", path).code == 0
    (tmp_path / "studies/tiny/notes.txt").write_text("mine")
    (tmp_path / "studies/tiny/report.pdf").write_text("mine")
    return path


def test_fresh_lists_what_it_would_delete_and_refuses(
    run: Run, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_in(tmp_path)
    monkeypatch.setattr("kdscale.search.sweep", must_not_run)
    ran = run("sweep", swept, "--fresh")
    assert ran.code == 2
    assert ran.err == "error --fresh: nothing was deleted (answer y, or add --yes)\n"
    assert ran.out.startswith("--fresh deletes:\n  studies/tiny/study.db (")
    for name in ("study.yaml", "report.html", "report.csv", "report.md", "report-tables"):
        assert f"  studies/tiny/{name} (" in ran.out
    assert "notes.txt" not in ran.out
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(("answer", "deletes"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_fresh_asks_in_a_terminal(
    run: Run, swept: Path, monkeypatch: pytest.MonkeyPatch, answer: str, deletes: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    ran = run("sweep", swept, "--fresh")
    assert "Delete these?" in ran.out
    assert ran.code == (0 if deletes else 2)
    assert ("ended before" in ran.out, "nothing to train" in ran.out) == (False, False)
    assert ("undistilled; 2 cohort(s)" in one_line(ran.out)) is deletes


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_fresh_deletes_what_is_its_own_and_starts_over(
    run: Run, swept: Path, tmp_path: Path, pretend: Callable[..., None]
) -> None:
    pretend(interrupt_after=0)
    ran = run("sweep", swept, "--fresh", "--yes")
    assert ran.code == 130
    assert "--fresh" not in ran.out.split("To continue:")[1]  # which would delete it all again
    assert (tmp_path / "studies/tiny/notes.txt").read_text() == "mine"
    assert (tmp_path / "studies/tiny/report.pdf").read_text() == "mine"
    assert not (tmp_path / "studies/tiny/report.html").exists()
    ledger = open_ledger(load_study(swept), create=False)
    assert {trial.state for trial in ledger.trials} <= {"waiting", "running"}


def test_fresh_on_a_new_study_asks_nothing(
    run: Run, tmp_path: Path, pretend: Callable[..., None]
) -> None:
    pretend()
    ran = run("sweep", study_file(tmp_path), "--fresh")
    assert ran.code == 0
    assert "deletes" not in ran.out


def test_fresh_keeps_off_a_study_that_is_being_swept(run: Run, swept: Path, tmp_path: Path) -> None:
    with sweep_lock(tmp_path / "studies/tiny"):
        ran = run("sweep", swept, "--fresh", "--yes")
    assert ran.code == 2
    assert "one sweep at a time" in ran.err
    assert (tmp_path / "studies/tiny/study.db").exists()


# report


def test_report_of_no_study(run: Run, tmp_path: Path) -> None:
    ran = run("report", study_file(tmp_path))
    assert ran == Ran(
        2,
        "",
        "error studies/tiny: there must be a study to read, but there is none "
        "(kdscale sweep makes it)\n",
    )
    assert files_in(tmp_path) == {Path("tiny.yaml")}


def test_report_of_an_unfinished_study(
    run: Run, tmp_path: Path, pretend: Callable[..., None]
) -> None:
    pretend(interrupt_after=0)
    path = study_file(tmp_path)
    assert run("sweep", path).code == 130
    ran = run("report", path)
    assert (ran.code, ran.err) == (0, "")
    assert "no trial has trained to the last epoch" in one_line(ran.out)
    assert (tmp_path / "studies/tiny/report.md").exists()


def test_report_of_a_study_folder_that_has_moved(
    run: Run, tmp_path: Path, pretend: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(students=True)
    path = study_file(tmp_path)
    assert run("sweep", path).code == 0
    told = run("report", "studies/tiny").out
    elsewhere = tmp_path / "it's elsewhere"
    shutil.move(tmp_path / "studies", elsewhere)
    (elsewhere / "tiny/report.html").unlink()
    path.unlink()
    ran = run("report", elsewhere / "tiny")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[:-1] == told.splitlines()[:-1]
    assert ran.out.splitlines()[-1] == f"report: {elsewhere / 'tiny/report.html'}"
    assert (elsewhere / "tiny/report.html").exists()
    assert not (tmp_path / "studies").exists()

    monkeypatch.chdir(elsewhere / "tiny")
    assert run("report", ".").code == 0  # from inside as well

    (elsewhere / "tiny").rename(elsewhere / "renamed")
    ran = run("report", elsewhere / "renamed")
    assert (ran.code, ran.out) == (2, "")
    assert "must have the study's name, but that is tiny" in ran.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("storage.url='foo://x'", "storage.url: must be a database to use, but: Can't load"),
        ("storage.url='sqlite:///no/such/x.db'", "unable to open database file"),
        ("storage.url='sqlite://'", "storage.url: must hold the study tiny, but has none"),
    ],
)
def test_report_from_a_storage_that_cannot_be_used(
    run: Run, tmp_path: Path, override: str, message: str
) -> None:
    ran = run("report", study_file(tmp_path), override)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(("content", "message"), [(b"no", "not a database"), (b"", "has none")])
def test_report_of_a_damaged_study(run: Run, tmp_path: Path, content: bytes, message: str) -> None:
    folder = tmp_path / "studies/tiny"
    folder.mkdir(parents=True)
    (folder / "study.db").write_bytes(content * 100)
    ran = run("report", study_file(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error studies/tiny/study.db: must ")
    assert message in ran.err


def test_train_and_teacher_need_a_folder_before_they_train(
    run: Run, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train_cohort", "train_task_teacher", "settled_here"):
        monkeypatch.setattr(f"kdscale.search._single.{name}", must_not_run)
    monkeypatch.setattr("kdscale.workflow.evaluate", must_not_run)
    words = (study_file(tmp_path), "alpha=3", "depth=3", "storage.folder=tiny.yaml")
    given = f"task.teacher.weights={weights}"
    for ran in (run("train", *words, given), run("teacher", *words), run("teacher", *words, given)):
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("error tiny.yaml/tiny: must be a folder to write to, but: ")


def test_a_file_that_cannot_be_used_is_one_message(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "must be a file or folder that can be read and written, but:"
    for command in ("check", "status"):
        ran = run(command, "x" * 300)
        assert ran == Ran(2, "", f"error {'x' * 300}: {rule} File name too long\n")
    path = study_file(tmp_path)
    real = Path.exists

    def exists(self: Path) -> bool:
        if "studies" in self.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "exists", exists)
    ran = run("status", path)
    assert ran == Ran(2, "", f"error studies/tiny/study.db: {rule} Permission denied\n")


def test_an_error_of_no_file_is_no_users_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise OSError("a defect")

    monkeypatch.setattr("kdscale.workflow.load", load)
    with pytest.raises(OSError, match="a defect"):
        run("check", "x.yaml")


def test_sweep_needs_a_folder_to_write_to(run: Run, tmp_path: Path) -> None:
    ran = run("sweep", study_file(tmp_path), "storage.folder=tiny.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error tiny.yaml/tiny: must be a folder to write to")


# ui


def test_ui_serves_the_study_on_the_loopback_address(
    run: Run, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[list[str], dict[str, str]]] = []

    def call(argv: list[str], env: dict[str, str]) -> int:
        called.append((argv, env))
        return 3

    monkeypatch.setattr(subprocess, "call", call)
    missing = run("ui", swept)
    assert (missing.code, missing.out, called) == (2, "", [])
    assert "must hold mlflow.db" in missing.err

    (tmp_path / "studies/tiny/mlflow.db").touch()
    ran = run("ui", "studies/tiny", "--port", "5123")
    assert (ran.code, ran.err) == (3, "")  # MLflow's own exit code
    assert ran.out == "tiny in MLflow (Ctrl-C ends it):\nhttp://127.0.0.1:5123/\n"
    ((argv, env),) = called
    assert argv[:4] == [sys.executable, "-m", "mlflow", "ui"]
    options = dict(zip(argv[4::2], argv[5::2], strict=True))
    assert env["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/studies/tiny/mlflow.db"
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "5123")
    assert env["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert env["PATH"]


def test_ui_does_not_show_passwords(run: Run, swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(argv: list[str], env: dict[str, str]) -> int:
        assert "secret" not in " ".join(argv)  # which everybody on the machine can read
        assert env["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:secret@db/mlflow"
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    ran = run("ui", swept, "tracking.uri='postgresql://me:secret@db/mlflow'")
    assert ran.code == 0
    assert "secret" not in ran.out + ran.err
    ran = run("ui", swept, "tracking.uri='https://me:secret@server/'")
    assert ran.code == 2
    assert "open that in a browser" in ran.err
    assert "secret" not in ran.out + ran.err


# track


@pytest.fixture
def tracked(run: Run, tmp_path: Path, pretend: Callable[..., None]) -> Path:
    """Returns the file of a study that was swept with its MLflow server away."""
    pretend()
    path = study_file(tmp_path, tracking={"uri": "http://me:s3cret@127.0.0.1:9"})
    ran = run("sweep", path)
    assert ran.code == 0
    assert "MLflow (http://me:***@127.0.0.1:9): it does not answer" in ran.err
    assert "s3cret" not in ran.out + ran.err
    return path


def test_track_sends_what_mlflow_lacks_and_rebuild_all(run: Run, tracked: Path) -> None:
    away = run("track", tracked)
    assert (away.code, away.out) == (2, "")
    assert "it does not answer (Connection refused) (the study has everything" in away.err
    assert "s3cret" not in away.err
    here = f"tracking.uri='sqlite:///{tracked.parent}/studies/tiny/mlflow.db'"
    for options in ([], [], ["--rebuild"]):
        ran = run("track", tracked, here, *options)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.endswith("MLflow has all of tiny: 6 trials\n")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=here.partition("=")[2].strip("'"))
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 7
    [study_run] = [run for run in runs if run.data.tags["kdscale.kind"] == "study"]
    files = {file.path for file in client.list_artifacts(study_run.info.run_id)}
    assert files == {"study.yaml", "report.html", "report.csv", "report.md"}


def test_a_study_that_is_not_tracked_says_so(run: Run, swept: Path) -> None:
    ran = run("track", swept)
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err == "error tracking.mlflow: must be true for a study to be tracked, but is false\n"
    )


# As a process


def test_the_installed_command(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "kdscale"
    path = ROOT / "tests/search/broken/unknown_keys.yaml"
    ran = subprocess.run([command, "check", path], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error {path}:5: task.student.modle: must be a known key")
    assert 'did you mean "model"?' in ran.stderr
    assert "Traceback" not in ran.stderr
    ran = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{__version__}\n", "")
    assert not files_in(tmp_path)


# audit


def test_audit_of_the_shipped_tables(run: Run) -> None:
    ran = run("audit", "ldrld-sensitivity")
    assert (ran.code, ran.err) == (0, "")
    assert max(cell_len(line) for line in ran.out.splitlines()) <= 80
    text = one_line(ran.out)
    assert "spread best − mean sums to 1.87; noise of equal spread shows 1.83 (p = 0.56)" in text
    assert "smoothness" in text
    assert "(p = 0.33)" in text
    assert text.endswith("verdict not distinguishable from noise")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ldrld-sensitvity"], 'did you mean "ldrld-sensitivity"?'),
        (["ldrld-depth", "--noise", "-1"], "--noise: must be between 1e-09 and 1e+09, but got -1"),
        (["ldrld-depth", "--noise", "nan"], "must be between 1e-09 and 1e+09, but got nan"),
        (["ldrld-depth", "--noise", "1e300"], "must be between 1e-09 and 1e+09, but got 1e+300"),
        (["ldrld-depth", "--noise", "1e-300"], "must be between 1e-09 and 1e+09, but got 1e-300"),
    ],
)
def test_audit_of_what_is_none(run: Run, words: list[str], message: str) -> None:
    ran = run("audit", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_audit_tells_all_that_is_wrong_with_a_table(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("alpha,score,n\n1,70.0,0\n2,high,3\n3,71.0\n")
    ran = run("audit", "t.csv")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "error t.csv:2: n: must be a whole number >= 1, but got 0",
        "t.csv:3: score: must be a finite number, but got high",
        "t.csv:4: a row must have 3 cells, as the column names, but got 2",
    ]


# power


def test_check_says_the_seeds_that_a_difference_needs(run: Run, tmp_path: Path) -> None:
    ran = run("check", study_file(tmp_path), "--power", "0.3", "--noise", "0.2")
    assert (ran.code, ran.err) == (0, "")
    assert max(cell_len(line) for line in ran.out.splitlines()) <= 80
    text = one_line(ran.out)
    assert "noise 0.2 over seeds, as given" in text
    assert "a difference of 0.3 between two configurations needs 10 paired seeds" in text
    assert "the plan's 2 seeds show differences of " in text


def test_check_takes_the_noise_from_a_study(
    run: Run, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdscale.workflow.open_ledger", must_not_run)  # it may be another's
    ran = run("check", swept, "--power", "0.3", "--noise", swept)
    assert (ran.code, ran.err) == (0, "")
    assert "from 4 trials of tiny" in one_line(ran.out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--power", "0.3"], "--power: must come with --noise, a standard deviation or a study"),
        (["--power", "0", "--noise", "1"], "--power: must be a finite number > 0, but got 0"),
        (["--power", "1", "--noise", "nan"], "--noise: must be a finite number > 0, but got nan"),
        (["--noise", "1"], "--noise: must come with --power DIFFERENCE"),
        (["--power", "1", "--noise", "no.yaml"], "no.yaml: the study file must be readable"),
    ],
)
def test_power_without_noise_is_refused(
    run: Run, tmp_path: Path, words: list[str], message: str
) -> None:
    ran = run("check", study_file(tmp_path), *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in one_line(ran.err)


# compare


def test_help_of_compare_says_where_the_page_goes(run: Run) -> None:
    told = run("compare", "--help").out
    assert "Folder of the page [default:" in told
    assert "comparisons/NAMES]." in told


def test_studies_are_compared_on_one_page(
    run: Run, tmp_path: Path, pretend: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend()
    for name in ("one", "two"):
        run("sweep", study_file(tmp_path / name, name=name))
    studies = ["studies/one", "studies/two"]
    monkeypatch.setattr("kdscale.workflow.open_ledger", must_not_run)  # they may be another's
    ran = run("compare", *studies, "--no-mlflow", "--output", "side by side")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Which of one and two gives the student the highest validation")
    assert ran.out.endswith("comparison: side by side/comparison.html\n")
    page = (tmp_path / "side by side/comparison.html").read_text(encoding="utf-8")
    assert "one · two" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["studies/one"], "compare: must be given two studies or more, but got 1"),
        (["studies/one", "studies/one"], "each study must be given once"),
        (["studies/one", "studies/other"], "metric.goal: all studies must have the same"),
        (["studies/one", "nowhere"], "nowhere"),
        (["studies/one", "studies/other", "--output", "one/tiny.yaml"], "must be a folder"),
    ],
)
def test_what_cannot_be_compared_is_one_error(
    run: Run, tmp_path: Path, pretend: Callable[..., None], words: list[str], message: str
) -> None:
    pretend()
    run("sweep", study_file(tmp_path / "one", name="one"))
    metric = {"name": "val_accuracy", "goal": "minimize"}
    run("sweep", study_file(tmp_path / "other", name="other", metric=metric))
    ran = run("compare", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in one_line(ran.err)
    assert not (tmp_path / "comparisons").exists()
