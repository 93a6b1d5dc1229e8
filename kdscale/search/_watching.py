"""A sweep that is watched: its heartbeat in the ledger, and a word for whatever is stuck."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kdscale.search._heartbeat import Heart, Heartbeat
from kdscale.search._ledger import Ledger
from kdscale.search._queue import CohortQueue
from kdscale.search._resources import room, worker_bundle
from kdscale.search._watch import ClusterSeen, NodeRoom, Watch, rooms

if TYPE_CHECKING:
    from kdscale.search._places import Places


class Watching:
    """Beats while a sweep runs, and tells its listener what a user must know."""

    def __init__(
        self, ledger: Ledger, on_note: Callable[[str], None], trouble: Callable[[], str]
    ) -> None:
        """Watches nothing yet.

        Args:
            ledger: The study's record, which takes the heartbeats.
            on_note: Called from another thread with warnings, and with what is stuck and why.
            trouble: Returns what MLflow has not taken, or nothing.
        """
        resources = ledger.study.resources
        self.watch = Watch(resources.workers, worker_bundle(resources))
        self.lanes = 0
        self.doing = "Ray starts"
        self.ended = ""
        self._ledger = ledger
        self._on_note = on_note
        self._trouble = trouble
        self._cluster: tuple[CohortQueue, Places] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._heart = Heart(self._ledger.save_heartbeat, self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._heart.stop(self.ended if error is None else _words(error))

    @contextmanager
    def cluster(self, queue: CohortQueue) -> Iterator[Watch]:
        """Asks Ray as well while the block runs, and never after it.

        Args:
            queue: What trains there; from another thread it is told how many cohorts there is room
                for when nodes have come or gone, and asked how many there are.
        """
        from kdscale.search._places import Places

        places = Places(self._ledger.study.resources)
        self._cluster, self.doing = (queue, places), ""
        try:
            yield self.watch
        finally:
            with self._lock:
                self._cluster, self.doing = None, "it ends"
            with suppress(Exception):  # without its head a cluster knows of no wishes
                places.close()

    def _look(self, beat: Heartbeat) -> Heartbeat:
        with self._lock:
            seen = self._look_at(*self._cluster) if self._cluster else None
        found = replace(
            beat,
            doing=self.doing,
            lanes=self.lanes,
            cohorts=self.watch.cohorts(),
            epochs_per_second=self.watch.speed,
            asked=self.watch.asked,
            warnings=self.watch.warnings,
            tracking=self._trouble(),
        )
        if seen is None:
            return replace(found, waiting=())
        for text in self.watch.news(seen):
            self._on_note(text)
        return replace(found, there=rooms(seen), waiting=tuple(self.watch.stuck(seen).values()))

    def _look_at(self, queue: CohortQueue, places: Places) -> ClusterSeen:
        seen = look_at_cluster(self.watch.actors())
        if seen.ok:
            self._count_lanes(seen, queue)
            places.look(self.lanes, queue.wanted)
        return seen

    def _count_lanes(self, seen: ClusterSeen, queue: CohortQueue) -> None:
        alive = [node.there for node in seen.nodes if node.alive]
        # Where there is room for none one waits, and so is told of with what it asks for.
        lanes = max(1, room(self._ledger.study.resources, alive))
        if lanes != self.lanes:
            self._on_note(f"nodes have come or gone: now {lanes} cohort(s) at once")
            self.lanes = lanes
            queue.resize(lanes)


def look_at_cluster(actors: Mapping[str, str]) -> ClusterSeen:
    """Returns what Ray says now of its nodes and of the actors behind cohorts.

    Args:
        actors: By cohort, the hexadecimal id of its actor.
    """
    # The functions around this object would start a Ray where there is none any more.
    from ray._private.state import state

    try:
        free = state.available_resources_per_node()
        nodes = tuple(
            NodeRoom(
                name=f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
                there=node["Resources"],
                free=free.get(node["NodeID"], {}),
                alive=node["Alive"],
            )
            for node in state.node_table()
        )
        states = {
            cohort: str(state.actor_table(actor).get("State", ""))
            for cohort, actor in actors.items()
        }
    except Exception:  # its head is gone, or it ends: whatever it raises says the same
        return ClusterSeen(ok=False)
    return ClusterSeen(nodes, states)


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C or SIGTERM"
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
