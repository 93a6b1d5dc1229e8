from __future__ import annotations

import pickle

from ray.exceptions import RayActorError
from ray.train import ControllerError, PreemptionError, PreemptionInfo, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupFailedError,
    WorkerHealthCheckFailedError,
)

from kdscale.errors import UserError
from kdscale.search._lane import told_of, told_of_workers, workers_tell


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
    assert told_of_workers(failures) == {"refused": "task.data.root: must be a folder, but is none"}


def test_a_crash_is_told_of_every_worker_in_one_line() -> None:
    failures = {
        1: WorkerHealthCheckFailedError("the process died", RuntimeError("out of memory")),
        0: raised(OSError("no space left\non the device")),
    }
    told = told_of_workers(failures)["crashed"]
    assert told.startswith("worker 0: OSError: no space left; worker 1: ")
    assert "the process died" in told
    assert "\n" not in told


def test_memory_that_any_worker_lacks_is_told() -> None:
    failures = {0: raised(OSError("Connection closed by peer")), 1: raised(MemoryError("full"))}
    assert told_of_workers(failures)["reason"] == "out of memory"
    assert told_of_workers({0: raised(OSError("no space left"))})["reason"] == "worker crash"


def test_a_lane_looks_for_a_lost_node_unless_a_worker_says_what_was_wrong() -> None:
    closed = raised(RuntimeError("Connection closed by peer [10.0.0.2]:4711"))
    assert not workers_tell(WorkerGroupError("one failed", {0: closed}))
    assert not workers_tell(WorkerGroupError("both are gone", {0: closed, 1: RayActorError()}))
    assert not workers_tell(ControllerError(WorkerGroupStartupFailedError("one did not start")))
    assert workers_tell(WorkerGroupError("both", {0: closed, 1: raised(MemoryError())}))
    assert workers_tell(PreemptionError(PreemptionInfo(None, {"gpu-7": [0]})))


def test_how_ray_train_ends_a_lane_is_told_with_the_reason() -> None:
    workers = WorkerGroupError("one died", {0: raised(MemoryError("full"))})
    assert told_of(workers)["reason"] == "out of memory"
    assert told_of(PreemptionError(PreemptionInfo(None, {"gpu-7": [0]})))["reason"] == "preempted"
    assert told_of(ValueError("no")) == {"crashed": "Ray Train gave up: ValueError: no"}
