"""Places on a cluster that nobody trains in: those to give back, and those to ask for."""

from __future__ import annotations

import json
import time

from ray import ActorID, PlacementGroupID, get_runtime_context
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._private.state import state
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from kdscale.search._resources import worker_bundle
from kdscale.search._sections import ResourcesSpec

_MOST = 100
"""Cohorts that are asked for at most; when they have got their nodes, more are."""

_LOOK_SECONDS = 1.0


class Places:
    """Looks after the placement groups of a sweep while it runs."""

    def __init__(self, resources: ResourcesSpec) -> None:
        """Asks for nothing yet."""
        self._resources = resources
        self._bundles = [worker_bundle(resources)] * resources.workers
        self._wished: list[PlacementGroup] = []
        self._grows = False

    def look(self, lanes: int, wanted: int) -> None:
        """Gives back what dead lanes hold, and asks for the nodes that more cohorts could use.

        Args:
            lanes: Cohorts that have room.
            wanted: Cohorts that there are to train.
        """
        if self._resources.workers > 1:
            _reap(get_runtime_context().get_job_id())
        self._grows = self._grows or has_autoscaler()
        self._wish(wanted - lanes if self._grows else 0)

    def close(self) -> None:
        """Asks for nothing any more."""
        self._wish(0)

    def _wish(self, cohorts: int) -> None:
        """Asks an autoscaler for nodes in the one way that ends with the driver however it dies.

        A placement group that has no place is what an autoscaler starts nodes for. One that got
        its place is removed, so that a cohort can have it.
        """
        waiting = [group for group in self._wished if not group.wait(timeout_seconds=0)]
        kept = waiting[: max(0, cohorts)]
        for group in set(self._wished) - set(kept):
            remove_placement_group(group)
        new = [
            placement_group(self._bundles, strategy=self._resources.placement.upper())
            for _ in range(min(cohorts, _MOST) - len(kept))
        ]
        self._wished = kept + new


def has_autoscaler(patience_seconds: float = 0.0) -> bool:
    """Returns whether the cluster may get more nodes when there is no place on those it has.

    Args:
        patience_seconds: How long to wait for an autoscaler that has not said a word yet.
    """
    end = time.monotonic() + patience_seconds
    while not (types := _node_types()) and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
    # Where nobody starts nodes, Ray gives each of them a type of its own.
    return any(kind != f"node_{node}" for node, kind in types.items())


def _node_types() -> dict[str, str]:
    """Returns the type of each node by its id, as Ray's autoscaler or its stand-in tells them."""
    if is_autoscaler_v2():
        status = get_cluster_status(get_runtime_context().gcs_address)
        nodes = status.active_nodes + status.idle_nodes
        return {node.node_id: node.ray_node_type_name for node in nodes}
    said = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report = json.loads(said or "{}").get("autoscaler_report", {})
    return dict(report.get("node_type_mapping") or {})


def _reap(job: str) -> None:
    """Removes the placement groups that dead actors of a Ray job have left.

    Ray keeps an actor's placement groups as long as its driver lives, and Ray Train removes those
    of a run that it has started, but not of one that was still starting when its actor died.
    """
    for data in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(data)
        if (
            group.creator_job_id.hex() == job
            and group.creator_actor_dead
            and not ActorID(group.creator_actor_id).is_nil()
            and group.state != PlacementGroupTableData.REMOVED
        ):
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
