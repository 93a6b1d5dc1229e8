"""How many cohorts a cluster can train at once, so that no worker ever waits for another's CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kdscale.errors import UserError
from kdscale.search._sections import ResourcesSpec

_TOLERANCE = 1e-9


def worker_bundle(resources: ResourcesSpec) -> dict[str, float]:
    """Returns what one worker takes of a node, in Ray's spelling."""
    bundle = {"CPU": float(resources.cpus_per_worker)}
    if resources.gpus_per_worker:
        bundle["GPU"] = resources.gpus_per_worker
    return bundle


def room(resources: ResourcesSpec, nodes: Sequence[Mapping[str, float]]) -> int:
    """Returns how many cohorts have room on nodes with these resources at once, perhaps none."""
    bundle = worker_bundle(resources)
    return sum(_fit(bundle, node) for node in nodes) // resources.workers


def lanes(
    resources: ResourcesSpec,
    nodes: Sequence[Mapping[str, float]],
    may_grow: Callable[[], bool] = lambda: False,
) -> int:
    """Returns how many cohorts can train at once: at least one.

    A cohort of several workers starts only when all of them have a place. Were more cohorts
    started than this, each could hold some workers and wait for ever for the others.

    Args:
        resources: What a cohort asks for.
        nodes: The resources of each node that is alive, in Ray's spelling.
        may_grow: Returns whether the cluster may get more nodes; asked where none fits.

    Raises:
        UserError: If not even one cohort will fit, with what is asked and what is there.
    """
    count = room(resources, nodes)
    if count == 0 and not may_grow():
        bundle = worker_bundle(resources)
        asked = ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())
        there = "; ".join(
            ", ".join(f"{node.get(name, 0):g} {name}" for name in ("CPU", "GPU")) for node in nodes
        )
        raise UserError(
            f"resources: the cluster must have room for {resources.workers} worker(s) of {asked} "
            f"each, but its nodes have {there} (Ray sees no GPU that CUDA does not see; "
            "`kdscale doctor` tells)"
        )
    return max(1, count)


def _fit(bundle: Mapping[str, float], node: Mapping[str, float]) -> int:
    """Returns how many workers have a place on a node."""
    return min(_times(amount, node.get(name, 0.0)) for name, amount in bundle.items())


def _times(amount: float, there: float) -> int:
    if amount < 1:  # a share of one GPU: what two GPUs have left over does not add up
        return int(there) * int(1 / amount + _TOLERANCE)
    return int(there / amount + _TOLERANCE)
