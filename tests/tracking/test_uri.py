from __future__ import annotations

from pathlib import Path

import pytest

from kdscale.errors import UserError
from kdscale.tracking import mlflow_environment, tracking_uri, ui_command, ui_environment
from kdscale.tracking._uri import artifact_location


def test_study_file_before_environment_before_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    assert tracking_uri(tmp_path) == "http://mlflow.example:5000"
    assert tracking_uri(tmp_path, "sqlite:///other.db") == "sqlite:///other.db"


def test_artefacts_of_a_database_lie_in_the_study_folder(tmp_path: Path) -> None:
    inside = (tmp_path / "mlartifacts").as_uri()
    assert artifact_location(tmp_path, "sqlite:///x.db") == inside
    assert artifact_location(tmp_path, "postgresql+psycopg2://u:p@h/d") == inside
    assert artifact_location(tmp_path, "http://mlflow.example") is None


def test_ui_listens_on_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"must hold mlflow\.db"):
        ui_command(tmp_path)
    (tmp_path / "mlflow.db").touch()
    command = ui_command(tmp_path, port=5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5001"
    environment = ui_environment(tmp_path)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_server_has_its_own_ui_and_keeps_its_password(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"http://me:\*\*\*@mlflow\.example: open that"):
        ui_command(tmp_path, "http://me:secret@mlflow.example")


def test_environment_leaves_the_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    environment = mlflow_environment()
    assert environment["DO_NOT_TRACK"] == environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"
