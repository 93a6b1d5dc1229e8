"""`kdscale submit`: what it renders, what it refuses, and what it hands to other programs."""

from __future__ import annotations

import re
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import study_file

from kdscale import cli
from kdscale.launch import Options, make_request, render
from kdscale.search import load_study

from .manifests import check_manifest, load_all

Run = Callable[..., tuple[int, str, str]]
OVERRIDES = ("alpha=interval(0,14)", "name=it-s", "depth=choice(3,5)")
KUBERAY = ("--image", "example.com/kdscale:1", "--claim", "studies")
FOLDER = "storage.folder=/shared/studies"
SHELLCHECK = Path(sys.executable).parent / "shellcheck"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Returns a function that runs ``kdscale submit tiny.yaml`` with these words."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    study_file(tmp_path)

    def run(*words: str, study: str = "tiny.yaml") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdscale", "submit", study, *words])
        code: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert isinstance(code, int)
        return code, out, err

    return run


def program(folder: Path, name: str, body: str) -> None:
    """Writes a program that stands in for one that this machine lacks."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# Refused, with one message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "rya"], "--to: must be one of ray, kuberay, slurm, local, but got rya (did you"),
        (["--to", "slurm", "--image", "x"], "--image: must be given only with --to kuberay, but"),
        (["--to", "local", "--nodes", "2"], "--nodes: must be given only with --to kuberay or sl"),
        (["--to", "ray"], "storage.folder: must be an absolute path with --to ray, a folder that"),
        (["--to", "ray", FOLDER], "--address: must be given with --to ray, such as http://HEAD"),
        (
            ["--to", "ray", FOLDER, "--address", "http://a:b@h:8265"],
            "--address: must hold no password",
        ),
        (
            ["--to", "slurm", "storage.url='postgresql://me:secret@host/db'"],
            "storage.url: must hold no password, since logs and dashboards show the command",
        ),
        (
            ["--to", "local", "--dry-run", "storage={url: 'postgresql://me:secret@host/db'}"],
            "storage: must hold no password, since logs and dashboards show the command",
        ),
        (["--to", "slurm", "storage.urll='postgresql://me:secret@host/db'"], "me:***@host/db"),
        (["--to", "kuberay", FOLDER], "--image: must be given with --to kuberay"),
        (["--to", "kuberay", FOLDER, *KUBERAY[:2]], "--claim: must be given with --to kuberay"),
        (["--to", "slurm", "--cpus", "1", "resources.workers=2"], "must have room for one cohort"),
        (["--to", "slurm", "budget.epoch=3"], "budget.epoch: must be a known key"),
    ],
)
def test_what_cannot_be_submitted_is_one_message(run: Run, words: list[str], message: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error ")
    assert message in err
    assert "secret" not in err


def test_a_study_with_a_password_goes_into_no_config_map(run: Run, tmp_path: Path) -> None:
    storage = {"folder": "/shared", "url": "postgresql://me:secret@host/db"}
    study_file(tmp_path, storage=storage)
    code, _, err = run("--to", "kuberay", *KUBERAY)
    assert code == 2
    assert err.startswith("error storage.url: must hold no password with --to kuberay")
    assert "secret@" not in err


def test_a_study_file_that_is_not_uploaded_is_refused(run: Run, tmp_path: Path) -> None:
    words = ("--to", "ray", "--address", "http://127.0.0.1:1", "--dry-run", FOLDER)
    outside = study_file(tmp_path.parent / f"{tmp_path.name}-outside")
    assert "must lie in the working directory with --to ray" in run(*words, study=str(outside))[2]
    (tmp_path / ".gitignore").write_text("tiny.yaml\n")
    assert "the study file must be uploaded, but .gitignore" in run(*words)[2]
    (tmp_path / ".gitignore").unlink()
    (tmp_path / "done").mkdir()
    (tmp_path / "done/study.yaml").write_text(study_file(tmp_path, name="done").read_text())
    assert "must be a study file with --to ray" in run(*words, study="done")[2]


@pytest.mark.parametrize(
    ("words", "tool"), [(["slurm"], "sbatch"), (["kuberay", FOLDER, *KUBERAY], "kubectl")]
)
def test_a_missing_program_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], tool: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = run("--to", *words)
    assert (code, out) == (2, "")
    assert f"there must be a program {tool} on this machine's PATH" in err
    assert run("--to", *words, "--dry-run")[0] == 0


def test_no_cluster_at_the_address(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code, out, err = run("--to", "ray", "--address", f"http://127.0.0.1:{port}", FOLDER)
    assert (code, out) == (2, "")
    assert f"http://127.0.0.1:{port}: there must be a Ray cluster that takes jobs, but: " in err


# Rendered


def test_a_dry_run_for_ray_lists_the_upload(run: Run, tmp_path: Path) -> None:
    (tmp_path / "studies/old").mkdir(parents=True)
    (tmp_path / "studies/old/study.db").write_text("x")
    words = ("--to", "ray", "--address", "http://head:8265", "--dry-run", FOLDER, *OVERRIDES)
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    comment, command, *rest = out.splitlines()
    assert comment.startswith("# kdscale submit tiny.yaml --to ray --address http://head:8265 ")
    sent = shlex.split(command)
    assert sent[:5] == ["ray", "job", "submit", "--address", "http://head:8265"]
    sweep = ["kdscale", "sweep", "tiny.yaml", FOLDER, *OVERRIDES]
    assert sent[sent.index("--") + 1 :] == sweep
    size = (tmp_path / "tiny.yaml").stat().st_size
    assert rest == [
        f"# uploads 1 file(s), {size} B of at most 512 MiB",
        f"#     {size} B  tiny.yaml",
    ]


def test_what_is_not_uploaded_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here.pt").write_text("weights")
    words = ("--to", "ray", "--address", "http://head:8265", "--dry-run", FOLDER)
    assert "not uploaded" not in run(*words, "task.teacher.weights=here.pt")[1]
    out = run(*words, "task.teacher.weights=/models/teacher.pt")[1]
    assert "# task.teacher.weights is not uploaded: all nodes must have /models/teacher.pt\n" in out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--nodes", "3", "--gpus", "8", "--time", "30", "--partition", "gpu", *OVERRIDES],
        ["resources.workers=2", "resources.gpus_per_worker=0.5", "name=with.dots_and-more"],
    ],
)
def test_a_batch_script_is_clean_and_runs_the_sweep(run: Run, words: list[str]) -> None:
    code, out, err = run("--to", "slurm", "--dry-run", *words)
    assert (code, err) == (0, "")
    done = subprocess.run([SHELLCHECK, "-"], input=out, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    overrides = [word for word in words if "=" in word]
    assert f"{shlex.join(['kdscale', 'sweep', 'tiny.yaml', *overrides])} &\n" in out
    assert "#SBATCH --requeue\n#SBATCH --signal=B:USR1@120\n" in out
    assert "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600" in out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--namespace", "team", "--queue", "gpus", "--nodes", "2", "--memory", "64Gi"],
        ["resources.workers=2", "resources.gpus_per_worker=1", *OVERRIDES],
        [f"name={'long-' * 19}x"],
    ],
)
def test_kubernetes_takes_the_manifests(run: Run, tmp_path: Path, words: list[str]) -> None:
    code, out, err = run("--to", "kuberay", "--dry-run", FOLDER, *KUBERAY, *words)
    assert (code, err) == (0, "")
    config_map, job = load_all(out)
    for manifest in (config_map, job):
        check_manifest(manifest)
        assert len(manifest["metadata"]["name"]) <= 47
    ((name, text),) = config_map["data"].items()
    assert text == (tmp_path / "tiny.yaml").read_text()
    overrides = [word for word in words if "=" in word]
    assert shlex.split(job["spec"]["entrypoint"]) == [
        "kdscale",
        "sweep",
        f"/etc/kdscale/{name}",
        FOLDER,
        *overrides,
    ]
    # KubeRay takes one way to say when the cluster goes, Kueue only the older one.
    spec = job["spec"]
    assert ("deletionStrategy" in spec) != spec.get("shutdownAfterJobFinishes", False)
    assert spec.get("suspend", False) == ("--queue" in words)
    assert spec["backoffLimit"] == 3


@settings(deadline=None, max_examples=30)
@given(words=st.lists(st.sampled_from("a '\"$`\\(){}[],=:#|&;<>*?!~%\t").map("x=".__add__)))
def test_the_entry_point_survives_every_shell(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("study")
    path = study_file(folder, storage={"folder": "/shared"})
    options = Options(image="i", claim="c")
    request = make_request(load_study(path), path, words, "kuberay", options)
    job = load_all(render(request).text)[1]
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {job['spec']['entrypoint']}"], capture_output=True, text=True
    )
    assert done.stdout.split("\0")[3:-1] == words


# Submitted


def test_sbatch_gets_the_script_and_kdscale_on_its_path(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'cat > got.sbatch; echo "$PATH" > got.path; echo "$*" > got.words; echo "42;cluster"'
    program(tmp_path / "bin", "sbatch", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    code, out, err = run("--to", "slurm", *OVERRIDES)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "submitted as 42 to Slurm",
        "  tail -F kdscale-it-s-42.log",
        "  squeue --jobs 42",
        "  scancel 42    # submit again to go on",
    ]
    dry = run("--to", "slurm", "--dry-run", *OVERRIDES)[1]
    assert dry.startswith((tmp_path / "got.sbatch").read_text())
    assert (tmp_path / "got.words").read_text() == "--parsable\n"
    first = (tmp_path / "got.path").read_text().partition(":")[0]
    assert Path(first, "kdscale").exists()


def test_kubectl_gets_the_manifests_and_its_refusal_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = '[ "$1" = apply ] || exit 0; cat > got.yaml; echo "$*" > got.words'
    program(tmp_path / "bin", "kubectl", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    words = ("--to", "kuberay", FOLDER, *KUBERAY, "--namespace", "team")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [
        "submitted as rayjob/kdscale-tiny",
        "  kubectl -n team logs -f job/kdscale-tiny",
    ]
    assert (tmp_path / "got.words").read_text() == "apply -f -\n"
    assert [one["kind"] for one in load_all((tmp_path / "got.yaml").read_text())] == [
        "ConfigMap",
        "RayJob",
    ]
    program(tmp_path / "bin", "kubectl", 'cat > /dev/null; echo "no such namespace" >&2; exit 1')
    code, _, err = run(*words)
    assert (code, err) == (2, "error kubectl failed with exit code 1: no such namespace\n")


KUBECTL = """case "$*" in
*get*) test -f job && printf 'kdscale-tiny=%s' "$(cat job)" ;;
*delete*) rm job ;;
esac
echo "$*" >> got.words"""


@pytest.mark.parametrize("status", ["Complete", "Failed"])
def test_a_job_that_has_ended_makes_room_for_the_next(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    program(tmp_path / "bin", "kubectl", KUBECTL)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "job").write_text(status)
    code, out, err = run("--to", "kuberay", FOLDER, *KUBERAY, "--namespace", "team")
    assert (code, err) == (0, "")
    replaced = f"submitted as rayjob/kdscale-tiny, in place of the one before, which was {status}"
    assert out.splitlines()[0] == replaced
    got, *rest = (tmp_path / "got.words").read_text().splitlines()
    assert got.startswith("-n team get rayjob kdscale-tiny --ignore-not-found -o jsonpath=")
    assert rest == ["-n team delete rayjob kdscale-tiny --wait", "apply -f -"]


@pytest.mark.parametrize(("status", "said"), [("Running", "Running"), ("", "not started yet")])
def test_a_job_that_runs_is_left_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, said: str
) -> None:
    program(tmp_path / "bin", "kubectl", KUBECTL)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "job").write_text(status)
    code, out, err = run("--to", "kuberay", FOLDER, *KUBERAY)
    assert (code, out) == (2, "")
    assert err == (
        "error rayjob/kdscale-tiny: must have ended before the study is submitted again, but it "
        f"is {said} (wait for it, or stop it: kubectl delete rayjob kdscale-tiny)\n"
    )
    assert len((tmp_path / "got.words").read_text().splitlines()) == 1


def test_no_two_studies_share_the_name_of_a_job(tmp_path: Path) -> None:
    long = "a" * 60
    names = ["tiny", "it-s", "it.s", "it_s", "it--s", "its-", f"{long}-1", f"{long}-2"]
    path = study_file(tmp_path)
    made = {
        name: make_request(load_study(path, [f"name={name}"]), path, [], "slurm", Options()).name
        for name in names
    }
    assert len(set(made.values())) == len(names)
    assert made["tiny"] == "kdscale-tiny"
    assert made["it-s"] == "kdscale-it-s"
    assert all(re.fullmatch(r"[a-z0-9-]{1,46}[a-z0-9]", one) for one in made.values())


def test_local_sweeps_here_whatever_ray_address_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert run("--to", "local", "--dry-run", OVERRIDES[0])[1] == (
        f"env -u RAY_ADDRESS kdscale sweep tiny.yaml '{OVERRIDES[0]}'\n# nothing is uploaded\n"
    )
    code, out, err = run("--to", "local", "task.data.train_images=20")  # less than a batch
    assert (code, out) == (2, "")
    assert "recipe.batch_size must be at most the number of training images (20)" in err
