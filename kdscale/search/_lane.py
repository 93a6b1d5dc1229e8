"""A lane of several workers: one long Ray Train run that takes cohort after cohort.

Ray Train places the workers and joins them in a process group. That takes 15 seconds or more, so
it is done once a lane and not once a cohort: between cohorts the workers wait at a mailbox, with
data, teacher and process group as they are. When one of them dies or is preempted the lane ends,
and gives up what the others held: a cluster that has lost a node may have no room for it any more.
That holds from the start: Ray Train would try again in other places and keep those that it has, or
wait in them for a node that is gone, and so two lanes could wait for each other for ever.

When a node goes the workers on others often fail first, of a connection that is closed, and Ray
knows of the node some seconds later or, where nothing answers any more, after a minute. A lane
waits for that, unless all nodes answer: trials are tried again without limit when a node is lost,
but not when they crash.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray
import ray.train
from ray import cloudpickle, tune
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdscale.errors import UserError
from kdscale.search import _mailbox
from kdscale.search._cohort_job import Job, Place, reports, threads
from kdscale.search._deaths import LaneEndedError, cause_of, silent, worst_reason
from kdscale.search._interface import choose_interface
from kdscale.search._mailbox import Mailbox, Report
from kdscale.search._nodes import alive_nodes, one_goes
from kdscale.search._resources import worker_bundle
from kdscale.training import Group

_FAREWELL_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_START_SECONDS = 30 * 24 * 3600
_NODE_SECONDS = 90.0
_NODE_LOST = {"crashed": "a node of its workers was lost", "reason": "node lost"}

# The mailbox's actor gets the code itself: to import it, it would have to load torch.
cloudpickle.register_pickle_by_value(_mailbox)


class WarmLane(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """Ray Tune's actor of a lane: each of its trials is a cohort for the same workers."""

    def setup(self, config: dict[str, Any], place: Place) -> None:
        """Takes the first cohort."""
        self._place = place
        self._run: _TrainRun | None = None
        self._job: dict[str, Any] | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next cohort, and returns that the same actor can train it."""
        self._job = new_config
        return True

    def step(self) -> Report:
        """Returns the next report of the cohort; it is done when there are no more.

        Raises:
            LaneEndedError: If the workers are gone, after all that they have told. Ray Tune gives
                what is left to a lane that has workers, or starts one.
        """
        if self._run is None:
            self._run = _TrainRun(self._place)
        if self._job is not None:
            self._run.submit(self._job)
        self._job = None
        report = self._run.next()
        if report is None and self._run.ended:
            raise LaneEndedError(self._run.ended)
        return report or {"done": True}

    def cleanup(self) -> None:
        """Sends the workers home; those that do not go die with this actor."""
        if self._run is not None:
            self._run.close()


class _TrainRun:
    """The Ray Train run behind a lane, and the mailbox of its workers."""

    def __init__(self, place: Place) -> None:
        # Here, because workers without a driver are of no use, and go down with its node.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox)
        self._mailbox = actor.remote(place.study.resources.workers)
        self._place = place
        self.ended = ""  # why nobody takes jobs any more
        self._nodes: set[str] = set()  # of its workers; all there are until they have come
        self._thread = threading.Thread(target=self._fit, daemon=True)
        self._thread.start()
        threading.Thread(target=self._end_without_a_node, daemon=True).start()

    def submit(self, job: Mapping[str, Any]) -> None:
        ray.get(self._mailbox.submit.remote(job))

    def next(self) -> Report | None:
        report: Report | None = ray.get(self._mailbox.next.remote())
        return report

    def close(self) -> None:
        if ray.get(self._mailbox.close.remote()) and not self.ended:
            self._thread.join(_FAREWELL_SECONDS)

    def _fit(self) -> None:
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        # Who waits for places holds none of them, and may wait.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_START_SECONDS))
        resources = self._place.study.resources
        trainer = TorchTrainer(
            _work,
            train_loop_config={"mailbox": self._mailbox, "place": self._place},
            torch_config=_OverNodeAddresses(
                backend="nccl" if resources.gpus_per_worker else "gloo"
            ),
            scaling_config=ray.train.ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker=worker_bundle(resources),
                placement_strategy=resources.placement.upper(),
            ),
            run_config=ray.train.RunConfig(
                name=f"lane-{os.getpid()}",
                storage_path=str(self._place.folder / "ray"),
                failure_config=ray.train.FailureConfig(
                    max_failures=0, max_preemption_failures=0, controller_failure_limit=0
                ),
            ),
        )
        why: Report = {"crashed": "Ray Train ended the workers"}
        try:
            trainer.fit()
        except Exception as error:
            patience = 0.0 if workers_tell(error) else _NODE_SECONDS
            why = _NODE_LOST if one_goes(self._nodes, patience) else told_of(error)
        self._end(why)

    def _end_without_a_node(self) -> None:
        """Ends the lane when a node goes before all workers have come."""
        while not (self.ended or ray.get(self._mailbox.all_came.remote())):
            self._nodes |= alive_nodes()
            if one_goes(self._nodes, 0):
                self._end(_NODE_LOST)
            time.sleep(_LOOK_SECONDS)
        self._nodes = set(ray.get(self._mailbox.nodes.remote()))

    def _end(self, why: Report) -> None:
        # Before the driver is told, which may have the next job at once.
        self.ended = str(why.get("refused") or why.get("crashed"))
        ray.get(self._mailbox.fail.remote(why))


class _OverNodeAddresses(TorchConfig):  # type: ignore[misc]  # Ray has no types
    """Torch's process group over the addresses by which the cluster knows its nodes."""

    @property
    def backend_cls(self) -> type:
        """What Ray Train makes to set up the workers."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray has no types
    """Names the interface in every worker before the process group is made."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_choose_interface)
        super().on_start(worker_group, backend_config)


def _choose_interface() -> None:
    choose_interface(ray.util.get_node_ip_address())


def told_of(error: Exception) -> Report:
    """Returns what the driver is told of the error with which Ray Train has ended a lane."""
    if isinstance(error, ray.train.WorkerGroupError):
        return told_of_workers(error.worker_failures)
    if isinstance(error, ray.train.PreemptionError):
        return {"crashed": str(error), "reason": "preempted"}
    return {"crashed": f"Ray Train gave up: {type(error).__name__}: {error}"}


def workers_tell(error: Exception) -> bool:
    """Returns whether some worker says what was wrong, and not only that it or others are gone."""
    if isinstance(error, ray.train.PreemptionError):
        return True
    failures = error.worker_failures if isinstance(error, ray.train.WorkerGroupError) else {}
    return not all(silent(cause_of(failure)) for failure in failures.values())


def told_of_workers(failures: Mapping[int, Exception]) -> Report:
    """Returns what the driver is told when workers have raised, from Ray's error of each."""
    causes = {rank: cause_of(failure) for rank, failure in sorted(failures.items())}
    for cause in causes.values():
        if isinstance(cause, UserError):
            return {"refused": str(cause)}
    last_lines = [
        f"worker {rank}: {type(cause).__name__}: {cause}".splitlines()[0]
        for rank, cause in causes.items()
    ]
    return {"crashed": "; ".join(last_lines), "reason": worst_reason(causes.values())}


def _work(config: Mapping[str, Any]) -> None:
    """Trains cohort after cohort, as one of the workers."""
    mailbox, place = config["mailbox"], config["place"]
    context = ray.get_runtime_context()
    me, node = context.get_actor_id(), context.get_node_id()
    threads(place.study)
    group = Group.current(get_device())
    turn = 0
    while (taken := ray.get(mailbox.take.remote(me, turn, node))) is not None:
        turn, job = taken
        for report in reports(Job(**job), place, group):
            if group.rank == 0:
                ray.get(mailbox.report.remote(turn, report))
        ray.get(mailbox.done.remote(me, turn))
