from __future__ import annotations

import pickle

import pytest
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerHealthCheckFailedError,
)

from kdscale.errors import UserError
from kdscale.search._cohort_job import _told_of_workers
from kdscale.search._sweep import _ray


def raised(error: Exception) -> Exception:
    """Returns what Ray Train's driver gets of an error that a worker has raised."""
    wrapped: Exception = pickle.loads(
        pickle.dumps(UserExceptionWithTraceback(error, "Traceback ..."))
    )
    return wrapped


def test_a_user_error_of_any_worker_is_told_as_such() -> None:
    failures = {
        0: raised(RuntimeError("Connection closed by peer")),
        1: raised(UserError("task.data.root: must be a folder, but is none")),
    }
    assert _told_of_workers(failures) == {
        "refused": "task.data.root: must be a folder, but is none"
    }


def test_a_crash_is_told_of_every_worker_in_one_line() -> None:
    failures = {
        1: WorkerHealthCheckFailedError("the process died", RuntimeError("out of memory")),
        0: raised(OSError("no space left\non the device")),
    }
    told = _told_of_workers(failures)["crashed"]
    assert told.startswith("worker 0: OSError: no space left; worker 1: ")
    assert "the process died" in told
    assert "\n" not in told


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
    with pytest.raises(UserError, match=wanted), _ray():
        pass
