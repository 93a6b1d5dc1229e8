"""What a running sweep can say of itself: its cohorts, how fast they are, and what is stuck.

Knows nothing of Ray and of no clock but the one it is given: who asks Ray hands the answers in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kdscale.search._cohort_job import Job
from kdscale.search._heartbeat import CohortSeen

PATIENCE_SECONDS = 30.0
"""So long a cohort may wait for its workers before that is explained."""

_SILENCE_SECONDS = 60.0
_SILENCE_EPOCHS = 10.0
_AGAIN = 4.0
"""What goes on is told again when it has gone on so many times as long."""


@dataclass(frozen=True)
class NodeRoom:
    """What a node has, and what of it is free, in Ray's spelling.

    Attributes:
        name: Host name or address.
        there: Its resources.
        free: Those that nothing holds.
        alive: Whether the node answers.
    """

    name: str
    there: Mapping[str, float]
    free: Mapping[str, float]
    alive: bool = True


@dataclass(frozen=True)
class ClusterSeen:
    """What Ray says at one moment.

    Attributes:
        nodes: All nodes that it knows.
        actors: The state of the actor behind each cohort, in Ray's spelling.
        ok: Whether Ray answered.
    """

    nodes: tuple[NodeRoom, ...] = ()
    actors: Mapping[str, str] = field(default_factory=dict)
    ok: bool = True


@dataclass
class _Running:
    job: Job
    since: float
    last: float
    started: bool = False
    actor: str = ""
    images: int = 0
    reports: int = 0
    epoch: int = 0
    epoch_seconds: float = 0.0
    longest_seconds: float = 0.0
    node: str = ""
    told_at: float = 0.0


class Watch:
    """Follows the cohorts of a sweep. All of it may be called from any thread."""

    def __init__(
        self,
        workers: int = 1,
        bundle: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts without a cohort.

        Args:
            workers: Workers of a cohort.
            bundle: What each of them takes of a node, in Ray's spelling.
            clock: Returns seconds.
        """
        self._workers = workers
        self._bundle = dict(bundle or {"CPU": 1.0})
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._warnings: dict[str, None] = {}
        self._untold: list[str] = []
        self._first: float | None = None
        self._epochs = 0

    @property
    def asked(self) -> str:
        """What a cohort asks for: ``2 workers of 4 CPU, 1 GPU each``."""
        each = _amounts(self._bundle)
        return (
            f"1 worker of {each}"
            if self._workers == 1
            else f"{self._workers} workers of {each} each"
        )

    @property
    def speed(self) -> float:
        """Epochs of single trials that the sweep trains in a second; 0 while that is unknown."""
        with self._lock:
            seconds = 0.0 if self._first is None else self._clock() - self._first
            return self._epochs / seconds if self._epochs and seconds > 0 else 0.0

    def handed_out(self, job: Job) -> None:
        """Takes a cohort that Ray Tune has been given."""
        now = self._clock()
        with self._lock:
            self._running[job.cohort] = _Running(job, now, now)

    def started(self, cohort: str, actor: str = "") -> None:
        """Takes note that a cohort's actor has a place.

        Args:
            cohort: The cohort.
            actor: The actor's id, in hexadecimal.
        """
        with self._lock:
            if (running := self._running.get(cohort)) is not None:
                running.started = True
                running.actor = actor
                running.last = self._clock()

    def told(self, cohort: str, report: Mapping[str, Any]) -> None:
        """Takes what a running cohort tells.

        Args:
            cohort: Its name.
            report: With ``progress`` by trial, the ``images`` of an epoch, and ``warnings`` of its
                workers, if there are any.
        """
        now = self._clock()
        for text in report.get("warnings", ()):
            self.warn(text)
        with self._lock:
            running = self._running.get(cohort)
            if running is None:
                return
            running.started = True
            running.node = _node_of(report) or running.node
            running.images = report.get("images", running.images)
            told = [part["rows"] for part in report.get("progress", ()) if part["rows"]]
            ends = [int(rows[-1]["epoch"]) for rows in told]
            if ends and running.reports:  # the first one tells of epochs trained before
                self._first = running.last if self._first is None else self._first
                self._epochs += sum(map(len, told))
                running.epoch_seconds = now - running.last
                running.longest_seconds = max(running.longest_seconds, running.epoch_seconds)
            if ends:
                running.epoch = min(ends)
            running.reports += 1
            running.last = now
            running.told_at = 0.0

    def ended(self, cohort: str) -> None:
        """Takes a cohort's end."""
        with self._lock:
            self._running.pop(cohort, None)

    def warn(self, text: str) -> None:
        """Takes a warning, to be told once."""
        with self._lock:
            if text not in self._warnings:
                self._warnings[text] = None
                self._untold.append(text)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings of workers so far, each once."""
        with self._lock:
            return tuple(self._warnings)

    def actors(self) -> dict[str, str]:
        """Returns by cohort the id of its actor."""
        with self._lock:
            return {name: one.actor for name, one in self._running.items() if one.actor}

    def cohorts(self) -> tuple[CohortSeen, ...]:
        """Returns the cohorts that Ray Tune has, as a status shows them."""
        now = self._clock()
        with self._lock:
            return tuple(self._seen(running, now) for running in self._running.values())

    def stuck(self, seen: ClusterSeen) -> dict[str, str]:
        """Returns by cohort why it waits or is silent for longer than it should.

        Args:
            seen: What Ray says.
        """
        now = self._clock()
        with self._lock:
            found = {name: self._why(one, now, seen) for name, one in self._running.items()}
        return {name: why for name, why in found.items() if why}

    def news(self, seen: ClusterSeen) -> list[str]:
        """Returns what has not been told yet: warnings, and cohorts that are stuck.

        What stays as it is is told again, ever more rarely.

        Args:
            seen: What Ray says.
        """
        stuck = self.stuck(seen)
        now = self._clock()
        with self._lock:
            news, self._untold = self._untold, []
            for name, why in stuck.items():
                running = self._running.get(name)
                if running is None:
                    continue
                silent = now - running.last
                if not running.told_at or silent >= _AGAIN * running.told_at:
                    running.told_at = silent
                    news.append(why)
        return news

    def _seen(self, running: _Running, now: float) -> CohortSeen:
        seconds = running.epoch_seconds
        job = running.job
        return CohortSeen(
            name=job.cohort,
            seed=job.seed,
            trials=tuple(job.members),
            epoch=running.epoch,
            until=job.until,
            node=running.node,
            state=_state_of(running),
            epoch_seconds=round(seconds, 3),
            images_per_second=round(running.images / seconds, 1) if seconds else 0.0,
            silent_seconds=round(now - running.last, 1),
        )

    def _why(self, running: _Running, now: float, seen: ClusterSeen) -> str:
        silent = now - running.last
        name = f"cohort {running.job.cohort} ({len(running.job.members)} trial(s))"
        if not running.reports:
            if silent <= PATIENCE_SECONDS:
                return ""
            asked = f"asked {self.asked}; there {rooms(seen)}"
            if not running.started:
                return f"{name} waits for a process since {_seconds(silent)}: {asked}"
            if self._workers == 1:
                loads = f"{name} loads data and teacher since {_seconds(silent)}"
                return f"{loads}; {self._ray(running, seen)}"
            return (
                f"{name} has no word of its workers since {_seconds(silent)}: they wait for a "
                f"place, or load data and teacher; {asked}"
            )
        limit = max(_SILENCE_SECONDS, _SILENCE_EPOCHS * running.longest_seconds)
        if silent <= limit:
            return ""
        paced = (
            f"its epochs took up to {_seconds(running.longest_seconds)}"
            if running.longest_seconds
            else "it is in its first epoch"
        )
        where = f" on {running.node}" if running.node else ""
        silence = f"{name}{where} tells nothing since {_seconds(silent)}"
        return f"{silence}; {paced}; {self._ray(running, seen)}"

    def _ray(self, running: _Running, seen: ClusterSeen) -> str:
        if not seen.ok:
            return "Ray does not answer"
        state = seen.actors.get(running.job.cohort, "")
        dead = [node.name for node in seen.nodes if not node.alive and node.name in running.node]
        if dead:
            return f"Ray says: node {dead[0]} is dead; it starts the cohort again elsewhere"
        words = _ACTOR.get(state, f"its actor is {state}" if state else "it knows no such actor")
        return f"Ray says: {words}"


_ACTOR = {
    "ALIVE": "its actor is alive (it is left alone)",
    "PENDING_CREATION": "its actor has no place yet",
    "DEPENDENCIES_UNREADY": "its actor waits for what it needs",
    "RESTARTING": "its actor starts again",
    "DEAD": "its actor is dead; the cohort is tried again",
}


def rooms(seen: ClusterSeen) -> str:
    """Returns what is there and free on each node: ``gpu-1: 0 of 4 CPU, 0 of 1 GPU free``."""
    if not seen.ok:
        return "is unknown: Ray does not answer"
    lines = []
    for node in seen.nodes:
        if not node.alive:
            lines.append(f"{node.name}: dead")
            continue
        parts = [
            f"{node.free.get(name, 0.0):g} of {node.there[name]:g} {name}"
            for name in ("CPU", "GPU")
            if node.there.get(name)
        ]
        lines.append(f"{node.name}: {', '.join(parts) or 'no CPU'} free")
    return "; ".join(lines) or "no node"


def _state_of(running: _Running) -> str:
    if running.reports:
        return "measuring" if running.job.measure else "training"
    return "starting" if running.started else "waiting"


def _node_of(report: Mapping[str, Any]) -> str:
    if report.get("node"):
        return str(report["node"])
    host, address = report.get("hostname", ""), report.get("node_ip", "")
    return f"{host} ({address})" if host and address else str(host or address)


def _amounts(bundle: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
