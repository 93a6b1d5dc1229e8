from __future__ import annotations

import os
import shutil
import socket
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from kdscale.terminal import Finding, doctor_view, examine


def of(subject: str, folder: Path) -> list[Finding]:
    return [finding for finding in examine(folder) if finding.subject == subject]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_nothing_is_wrong_where_the_tests_run(tmp_path: Path) -> None:
    findings = examine(tmp_path)
    assert not [finding for finding in findings if finding.wrong]
    subjects = [finding.subject for finding in findings]
    assert subjects[0] == "Python"
    assert {"ray", "optuna", "mlflow", "torch", "CPU", "Ray", "disk", "MLflow"} <= set(subjects)
    assert "ruff" not in subjects  # an extra of developers


def test_an_old_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1, "final", 0))
    finding = of("Python", tmp_path)[0]
    assert finding.wrong
    assert "3.11" in finding.mend


def test_packages_that_are_absent_or_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "optuna":
            raise PackageNotFoundError(name)
        return "2.1" if name == "ray" else installed_version(name)

    monkeypatch.setattr("kdscale.terminal._doctor.version", version)
    wrong = {finding.subject: finding for finding in examine(tmp_path) if finding.wrong}
    assert set(wrong) == {"optuna", "ray"}
    assert (wrong["optuna"].seen, wrong["ray"].seen) == ("not installed", "2.1")
    assert wrong["optuna"].mend.startswith("pip install 'optuna>=")
    assert wrong["ray"].mend.startswith("pip install 'ray[")


def test_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="H200", total_memory=141 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert of("GPU", tmp_path) == []
    assert of("GPU 1", tmp_path) == [Finding("GPU 1", "H200, 141 GiB, bf16")]


def test_no_gpu_is_not_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (finding,) = of("GPU", tmp_path)
    assert "CPU" in finding.seen
    assert not finding.wrong


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_a_cluster_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"{prefix}127.0.0.1:{server.getsockname()[1]}")
        (finding,) = of("Ray", tmp_path)
        assert "answers; a sweep joins that cluster" in finding.seen
        assert not finding.wrong
    (finding,) = of("Ray", tmp_path)  # the server has gone
    assert "nothing answers" in finding.seen
    assert finding.wrong
    assert "unset RAY_ADDRESS" in finding.mend


def test_addresses_without_a_port_that_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("auto", "localhost"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        (finding,) = of("Ray", tmp_path)
        assert finding == Finding(
            "Ray", f"RAY_ADDRESS={address}: a sweep joins the cluster found there"
        )
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:99999")
    (finding,) = of("Ray", tmp_path)
    assert finding.wrong


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * 2**29))
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    (disk,), (folder,) = of("disk", tmp_path), of("folder", tmp_path)
    assert disk.seen == f"1.5 GiB free in {tmp_path}"
    assert "free some" in disk.mend
    assert not disk.wrong
    assert folder.wrong


def test_mlflow_does_not_show_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@server/")
    (finding,) = of("MLflow", tmp_path)
    assert "MLFLOW_TRACKING_URI is set" in finding.seen
    assert "secret" not in finding.seen


def test_the_table_shows_marks_and_mends() -> None:
    findings = [
        Finding("fine", "all well"),
        Finding("odd", "a little", "do [this]"),
        Finding("bad", "a " * 60, "do that", wrong=True),
    ]
    console = Console(file=StringIO(), width=80)
    console.print(doctor_view(findings))
    file = console.file
    assert isinstance(file, StringIO)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines[0] == " ✓  fine  all well"
    assert lines[1] == " !  odd   a little"
    assert lines[2] == "          → do [this]"
    assert lines[3].startswith(" ✗  bad   a a")
    assert lines[-1] == "          → do that"
    assert max(map(len, lines)) <= 80
