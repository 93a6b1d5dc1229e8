"""Places on a cluster that nobody trains in: those to give back, and those to ask for."""

from __future__ import annotations

from ray import ActorID, PlacementGroupID, get_runtime_context
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from kdscale.search._resources import room, worker_bundle
from kdscale.search._sections import ResourcesSpec

_MOST = 1000
"""Cohorts that are asked for at most: more nodes than any autoscaler starts at once."""


class Places:
    """Looks after the placement groups of a sweep while it runs."""

    def __init__(self, resources: ResourcesSpec) -> None:
        """Asks for nothing yet."""
        self._resources = resources
        self._bundles = [worker_bundle(resources)] * resources.workers
        self._wished: list[PlacementGroup] = []

    def look(self, lanes: int, wanted: int) -> None:
        """Gives back what dead lanes hold, and asks for the nodes that more cohorts could use.

        Args:
            lanes: Cohorts that have room.
            wanted: Cohorts that there are to train.
        """
        if self._resources.workers > 1:
            _reap(get_runtime_context().get_job_id())
        self._wish(min(wanted, growth(self._resources)) - lanes)

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


def growth(resources: ResourcesSpec) -> int:
    """Returns how many cohorts a cluster with an autoscaler may grow to hold; 0 without one."""
    most = state.get_max_resources_from_cluster_config()
    return 0 if most is None else room(resources, [most])


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
