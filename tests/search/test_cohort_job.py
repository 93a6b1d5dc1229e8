from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kdscale.errors import UserError
from kdscale.search._cluster import joined_cluster
from kdscale.search._cohort_job import Job, Place, reports
from kdscale.training import Group

from .studies import make_study

NETWORK = {"model": "resnet8"}


def test_a_cluster_that_cannot_be_joined_is_the_users_to_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**options: object) -> None:
        assert "address" not in options  # Ray itself reads RAY_ADDRESS
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379\nmore")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    wanted = r"RAY_ADDRESS: .* at 10\.0\.0\.1:6379, but: Failed to connect .* \(RAY_AUTH_MODE=token"
    with pytest.raises(UserError, match=wanted), joined_cluster():
        pass


def test_a_node_without_the_study_folder_is_named(tmp_path: Path) -> None:
    place = Place(make_study(), tmp_path, tmp_path / "teacher.pt")
    [told] = reports(Job("s0-1", 0, {"c000-s0": {"alpha": 9}}, 8), place, Group())
    assert told["refused"] == (
        f"storage.folder: must be a folder that all nodes share, but {socket.gethostname()} has "
        f"no {tmp_path / 'teacher.pt'} (or set storage.remote)"
    )


def test_a_node_without_the_data_is_named(tmp_path: Path) -> None:
    data = {"name": "image_folder", "root": str(tmp_path / "images"), "image_size": 32}
    study = make_study(task={"data": data, "teacher": NETWORK, "student": NETWORK})
    place = Place(study, tmp_path, tmp_path / "teacher.pt")
    [told] = reports(Job("s0-1", 0, {"c000-s0": {"alpha": 9}}, 8), place, Group())
    assert told["refused"].endswith(f"(on {socket.gethostname()})")
    assert str(tmp_path / "images") in told["refused"]
