"""How many machines a study takes, and of what size."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from kdscale.errors import UserError
from kdscale.search import Study, cohorts_of_a_generation, room, worker_bundle

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Shape:
    """The machines of a cluster.

    Attributes:
        nodes: How many.
        cpus: CPUs of each.
        gpus: GPUs of each.
        workers: Workers that have room on each.
        cohorts: Cohorts that train on them at once.
    """

    nodes: int
    cpus: int
    gpus: int
    workers: int
    cohorts: int

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPU(s)" if self.gpus else ""
        return (
            f"{self.nodes} node(s) of {self.cpus} CPU(s){gpus}: "
            f"room for {self.cohorts} cohort(s) at once"
        )


def shape_of(
    study: Study,
    *,
    cohorts: int | None = None,
    nodes: int | None = None,
    cpus: int | None = None,
    gpus: int | None = None,
) -> Shape:
    """Returns the machines for a study.

    Args:
        study: The study.
        cohorts: Cohorts to train at once; default: those of a generation, as many as never wait
            for one another.
        nodes: Nodes to spread them over; default: 1.
        cpus: CPUs of a node; default: what its share of the workers takes.
        gpus: GPUs of a node; default: likewise.

    Raises:
        UserError: If not one cohort has room.
    """
    resources = study.resources
    nodes = nodes or 1
    wanted = cohorts or cohorts_of_a_generation(study)
    workers = ceil(wanted * resources.workers / nodes)
    cpus = workers * resources.cpus_per_worker if cpus is None else cpus
    gpus = _gpus(workers, resources.gpus_per_worker) if gpus is None else gpus
    node = {"CPU": float(cpus), "GPU": float(gpus)}
    fits = room(resources, [node] * nodes)
    if fits == 0:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in worker_bundle(resources).items())
        raise UserError(
            f"--nodes, --cpus, --gpus: must have room for one cohort, {resources.workers} "
            f"worker(s) of {asked} each, but got {nodes} node(s) of {cpus} CPU, {gpus} GPU"
        )
    return Shape(nodes, cpus, gpus, workers, fits)


def _gpus(workers: int, each: float) -> int:
    if each < 1:
        return ceil(workers / int(1 / each + _TOLERANCE)) if each else 0
    return workers * int(each)
