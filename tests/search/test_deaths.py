from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from ray import cloudpickle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from kdscale.records import AttemptReason
from kdscale.search._deaths import (
    LaneEndedError,
    error_in,
    loss_of,
    reason_of,
    silent,
    worst_reason,
)
from kdscale.search._scheduler import LaneGoneError, take_all_deaths

NODE = "The actor died because its node has died. Node Id: 3f. the raylet was terminated"
WORKER = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
    "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file."
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "worker crash"),
        (ActorDiedError(), "worker crash"),
        (RayActorError(error_msg=WORKER), "worker crash"),
        (RayActorError(error_msg=NODE), "node lost"),
        (RayActorError(error_msg=NODE, preempted=True), "preempted"),
        (ActorUnavailableError("timed out", None), "node lost"),
        (NodeDiedError("gone"), "node lost"),
        (RayTaskError("step", "Traceback ...", LaneEndedError("worker 0: gone")), "node lost"),
        (
            OutOfMemoryError("Task was killed due to the node running low on memory"),
            "out of memory",
        ),
        (LaneGoneError(OutOfMemoryError("the node was running low on memory")), "out of memory"),
        (LaneGoneError(NodeDiedError("gone")), "node lost"),
        (MemoryError(), "out of memory"),
        (OSError("no space left"), "worker crash"),
    ],
)
def test_why_a_worker_died(error: BaseException | None, reason: AttemptReason) -> None:
    assert reason_of(error) == reason
    assert loss_of(error).reason == reason
    if isinstance(error, Exception):
        assert reason_of(WorkerHealthCheckFailedError("a check failed", error)) == reason


def test_an_actor_that_ray_kills_is_dead_and_nothing_else() -> None:
    """As Ray Tune's manager of actors tells it, which knows no error of Ray but the actor's own."""
    manager = RayActorManager(Mock())
    told: list[BaseException] = []
    lane = TrackedActor(0, on_error=lambda actor, error: told.append(error))
    task = TrackedActorTask(lane, on_error=lambda actor, error: told.append(error))
    killed = OutOfMemoryError("Task was killed due to the node running low on memory")

    def has_started() -> None:
        manager._live_actors_to_ray_actors_resources[lane] = (None, Mock())

    has_started()
    with pytest.raises(RuntimeError, match="unexpected exception"):
        manager._actor_task_failed(tracked_actor_task=task, exception=killed)
    take_all_deaths(manager)
    manager._actor_task_failed(tracked_actor_task=task, exception=killed)
    assert [loss_of(error).reason for error in told] == 2 * ["out of memory"]
    assert not manager.live_actors
    again = cloudpickle.loads(cloudpickle.dumps(told[0]))
    assert loss_of(again).reason == "out of memory"
    with pytest.raises(RuntimeError, match="unexpected exception: other"):
        manager._actor_task_failed(tracked_actor_task=task, exception=ValueError("other"))


def test_only_what_the_worker_did_itself_counts_and_only_then_has_it_surely_ended() -> None:
    for error in (None, MemoryError()):
        assert (loss_of(error).counts, loss_of(error).is_certain) == (True, True)
    for text in (RayActorError(error_msg=NODE), RayActorError(error_msg=NODE, preempted=True)):
        assert (loss_of(text).counts, loss_of(text).is_certain) == (False, False)


def test_a_lost_node_explains_why_the_other_workers_crashed() -> None:
    peer = RuntimeError("Connection closed by peer [10.0.0.2]:4711")
    assert worst_reason([peer, RayActorError(error_msg=NODE)]) == "node lost"
    assert worst_reason([peer, MemoryError()]) == "out of memory"
    assert worst_reason([peer]) == "worker crash"
    assert worst_reason([]) == "worker crash"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]"),
            True,
        ),
        (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), True),
        (RuntimeError("NCCL error: remote process exited or there was a network error"), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (RayActorError(error_msg="The actor died unexpectedly."), True),
        (WorkerHealthCheckFailedError("it is gone", RayActorError()), True),
        (WorkerHealthCheckFailedError("it is gone", MemoryError()), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (OSError("no space left"), False),
    ],
)
def test_a_worker_that_does_not_know_what_was_wrong_is_known(error: Exception, lost: bool) -> None:
    assert silent(error) == lost


def test_what_tune_has_written_of_an_error_is_read_back(tmp_path: Path) -> None:
    pickled, text = tmp_path / "error.pkl", tmp_path / "error.txt"
    assert error_in(None, None) is None
    assert error_in(str(pickled), str(text)) is None
    text.write_text("Failure # 1\nkilled, as the node was running low on memory")
    assert reason_of(error_in(str(pickled), str(text))) == "out of memory"
    pickled.write_bytes(cloudpickle.dumps(RayActorError(error_msg=NODE, preempted=True)))
    assert reason_of(error_in(str(pickled), str(text))) == "preempted"
    pickled.write_bytes(b"torn")
    assert reason_of(error_in(str(pickled), str(text))) == "out of memory"
