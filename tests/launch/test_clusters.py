"""The files of clusters/: valid by the schemas of those who read them, and what submit makes."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML
from typer.testing import CliRunner

from kdscale.cli import app

from .manifests import check_manifest, load_all

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
LAUNCHER = ("local.yaml", "on-premise.yaml", "aws.yaml", "gcp.yaml")
KUBERAY = ("kuberay-rayjob.yaml", "kuberay-rayjob-kueue.yaml", "kuberay-raycluster.yaml")
RENDERED = ("kuberay-rayjob.yaml", "kuberay-rayjob-kueue.yaml", "slurm.sbatch")
OTHERS = ("Dockerfile", "Dockerfile.dockerignore", "README.md")
TOOLS = Path(sys.executable).parent


def load(name: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(CLUSTERS / name))


def manifests(name: str) -> list[dict[str, Any]]:
    return load_all((CLUSTERS / name).read_text())


def test_each_file_has_its_test_and_its_line_in_the_readme() -> None:
    files = {path.name for path in CLUSTERS.iterdir()}
    assert files == {*LAUNCHER, *KUBERAY, *RENDERED, *OTHERS}
    readme = (CLUSTERS / "README.md").read_text()
    assert [
        name for name in (*LAUNCHER, *KUBERAY, *RENDERED, "Dockerfile") if name not in readme
    ] == []


# Rendered files


@pytest.mark.parametrize("name", RENDERED)
def test_a_rendered_file_is_what_the_command_in_it_makes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = (CLUSTERS / name).read_text()
    command = re.search(r"^# (kdscale submit .*)$", text, re.MULTILINE)
    assert command is not None
    ran = CliRunner().invoke(app, [*shlex.split(command[1])[1:], "--dry-run"])
    assert ran.exit_code == 0
    lines = ran.stdout.splitlines(keepends=True)
    while lines[-1].startswith("# "):  # notes and uploads
        lines.pop()
    assert "".join(lines) == text


def test_a_cluster_that_stays_has_the_workers_of_a_job() -> None:
    (cluster,) = manifests("kuberay-raycluster.yaml")
    (job,) = (one for one in manifests("kuberay-rayjob.yaml") if one["kind"] == "RayJob")
    stays, goes = cluster["spec"], copy.deepcopy(job["spec"]["rayClusterSpec"])
    assert stays.pop("enableInTreeAutoscaling")
    assert stays.pop("autoscalerOptions")["version"] == "v2"
    stays["workerGroupSpecs"][0]["maxReplicas"] = goes["workerGroupSpecs"][0]["maxReplicas"]
    pod = goes["headGroupSpec"]["template"]["spec"]
    pod["volumes"] = [one for one in pod["volumes"] if one["name"] != "study"]
    mounts = pod["containers"][0]["volumeMounts"]
    pod["containers"][0]["volumeMounts"] = [one for one in mounts if one["name"] != "study"]
    assert stays == goes


# By the schemas and linters of those who read them


@pytest.mark.parametrize("name", LAUNCHER)
def test_rays_cluster_launcher_takes_a_file(name: str) -> None:
    config = load(name)
    if config["provider"]["type"] != "local":  # Ray fills in the rest, some of it with empty values
        validate_config(prepare_config(copy.deepcopy(config)))
    schema_only = prepare_config(copy.deepcopy(config))
    validate_config(schema_only)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    starts = [*config["head_start_ray_commands"], *config.get("worker_start_ray_commands", [])]
    assert all("RAY_AUTH_MODE=token" in one for one in starts if "ray start" in one)
    with pytest.raises(jsonschema.ValidationError):
        validate_config({**schema_only, "workers": 2})


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_workers_are_spot_machines_and_the_head_is_not(name: str) -> None:
    spot: Callable[[Any], bool] = {
        "aws.yaml": lambda node: node.get("InstanceMarketOptions") == {"MarketType": "spot"},
        "gcp.yaml": lambda node: {"preemptible": True} in node.get("scheduling", []),
    }[name]
    config = load(name)
    types = config["available_node_types"]
    assert {name: spot(one["node_config"]) for name, one in types.items()} == {
        "head": False,
        "worker": True,
    }
    worker = types["worker"]
    assert worker["min_workers"] == 0  # a sweep asks for the nodes that it can use
    assert 0 < worker["max_workers"] == config["max_workers"]
    assert config["head_node_type"] == "head"


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_the_image_s_user_can_write_the_studies_of_a_new_file_system(name: str) -> None:
    user = re.search(r"^USER (\d+)$", (CLUSTERS / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    *_, mounted, owned = load(name)["initialization_commands"]
    assert "sudo mount" in mounted
    assert owned == f"sudo install -d -o {user[1]} -g {user[1]} /shared/studies"


@pytest.mark.parametrize("name", ["local.yaml", "on-premise.yaml"])
def test_a_folder_of_your_own_is_said_to_need_its_owner(name: str) -> None:
    head = (CLUSTERS / name).read_text().partition("cluster_name:")[0]
    assert "/shared" in head
    assert "uid 1000" in head


@pytest.mark.parametrize("name", KUBERAY)
def test_kubernetes_takes_a_manifest(name: str) -> None:
    for manifest in manifests(name):
        check_manifest(manifest)


def test_shellcheck_finds_nothing_in_the_batch_script() -> None:
    _lint("shellcheck", CLUSTERS / "slurm.sbatch")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    _lint("hadolint", CLUSTERS / "Dockerfile")


def _lint(tool: str, path: Path) -> None:
    done = subprocess.run([TOOLS / tool, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# One version of everything


def test_image_and_manifests_have_the_ray_of_the_constraints() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    ray = re.search(r"^ray==(.*)$", constraints, re.MULTILINE)
    assert ray is not None
    texts = [(CLUSTERS / name).read_text() for name in (*LAUNCHER, *KUBERAY, "Dockerfile")]
    tags = {tag for text in texts for tag in re.findall(r"kdscale:([\w.-]+)", text)}
    assert tags == {f"ray-{ray[1]}"}
    versions = {one for text in texts for one in re.findall(r"rayVersion: (\S+)", text)}
    assert versions == {ray[1]}


def test_the_image_can_write_to_postgresql_in_a_version_of_the_constraints() -> None:
    assert "--constraint constraints.txt '.[postgres]'" in (CLUSTERS / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[\[<>=]", one)[0] for one in project["optional-dependencies"]["postgres"]]
    constraints = (ROOT / "constraints.txt").read_text()
    assert names == ["psycopg"]
    assert all(f"\n{name}==" in constraints for name in (*names, "psycopg-binary"))


def test_the_image_has_the_oldest_python_that_kdscale_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = re.search(
        r"^FROM python:([\d.]+)-", (CLUSTERS / "Dockerfile").read_text(), re.MULTILINE
    )
    assert python is not None
    assert project["requires-python"] == f">={python[1]}"
    copied = re.findall(r"^COPY (.*) \S+$", (CLUSTERS / "Dockerfile").read_text(), re.MULTILINE)
    wanted = {name for line in copied for name in line.split()}
    allowed = (CLUSTERS / "Dockerfile.dockerignore").read_text().splitlines()
    assert wanted == {line.removeprefix("!") for line in allowed if line.startswith("!")}
    assert all((ROOT / name).exists() for name in wanted)
