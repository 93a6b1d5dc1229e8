from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kdscale.search._cohort_job import Job, _with_warnings
from kdscale.search._watch import ClusterSeen, NodeRoom, Watch, rooms
from kdscale.training import Progress

FULL = ClusterSeen(
    nodes=(
        NodeRoom("a (10.0.0.1)", {"CPU": 2.0, "GPU": 1.0}, {"CPU": 1.0}),
        NodeRoom("b (10.0.0.2)", {"CPU": 2.0}, {}, alive=False),
    ),
    actors={"s0-1": "ALIVE"},
)


@dataclass
class Clock:
    """Time that passes only when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def job(cohort: str = "s0-1", trials: int = 2) -> Job:
    members = {f"c{number:03d}-s0": {"alpha": 1.0} for number in range(trials)}
    return Job(cohort, 0, members, 12)


def report(*epochs: int, trials: int = 2, **more: Any) -> dict[str, Any]:
    rows = [{"epoch": epoch} for epoch in epochs]
    progress = [{"name": f"c{number:03d}-s0", "rows": rows} for number in range(trials)]
    return {"cohort": "s0-1", "images": 100, "progress": progress, **more}


def test_a_cohort_from_its_place_to_its_end() -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    watch.handed_out(job())
    [seen] = watch.cohorts()
    assert (seen.state, seen.trials) == ("waiting", ("c000-s0", "c001-s0"))
    watch.started("s0-1", "abc")
    assert watch.actors() == {"s0-1": "abc"}
    assert [one.state for one in watch.cohorts()] == ["starting"]
    watch.told("s0-1", report(1, 2, 3, hostname="a", node_ip="10.0.0.1"))
    [seen] = watch.cohorts()
    assert (seen.state, seen.epoch, seen.node) == ("training", 3, "a (10.0.0.1)")
    assert seen.epoch_seconds == 0.0  # those were trained before
    assert watch.speed == 0.0
    clock.now += 4.0
    watch.told("s0-1", report(4))
    [seen] = watch.cohorts()
    assert (seen.epoch, seen.epoch_seconds, seen.images_per_second) == (4, 4.0, 25.0)
    assert watch.speed == 2 / 4.0
    watch.ended("s0-1")
    assert watch.cohorts() == ()


def test_a_cohort_that_is_asked_for_is_not_stuck_at_once() -> None:
    clock = Clock()
    watch = Watch(2, {"CPU": 1.0, "GPU": 1.0}, clock)
    watch.handed_out(job())
    clock.now += 30.0
    assert watch.stuck(FULL) == {}
    clock.now += 1.0
    assert watch.stuck(FULL) == {
        "s0-1": "cohort s0-1 (2 trial(s)) waits for a process since 31 s: asked 2 workers of 1 "
        "CPU, 1 GPU each; there a (10.0.0.1): 1 of 2 CPU, 0 of 1 GPU free; b (10.0.0.2): dead"
    }


def test_workers_that_say_nothing_yet() -> None:
    for workers, words in [(1, "loads data and teacher"), (2, "has no word of its workers")]:
        clock = Clock()
        watch = Watch(workers, clock=clock)
        watch.handed_out(job())
        clock.now += 20.0
        watch.started("s0-1")
        clock.now += 20.0
        assert watch.stuck(FULL) == {}
        clock.now += 20.0
        assert words in watch.stuck(FULL)["s0-1"]


def test_silence_is_measured_by_the_cohorts_own_epochs() -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    watch.handed_out(job())
    watch.told("s0-1", report())
    for epoch in range(1, 4):
        clock.now += 20.0
        watch.told("s0-1", report(epoch, node="a (10.0.0.1)"))
    clock.now += 200.0
    assert watch.stuck(FULL) == {}
    clock.now += 1.0
    assert watch.stuck(FULL)["s0-1"] == (
        "cohort s0-1 (2 trial(s)) on a (10.0.0.1) tells nothing since 3 min; its epochs took up to "
        "20 s; Ray says: its actor is alive (it is left alone)"
    )
    assert "Ray does not answer" in watch.stuck(ClusterSeen(ok=False))["s0-1"]


def test_a_dead_node_is_named() -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    watch.handed_out(job())
    watch.told("s0-1", report(1, node="b (10.0.0.2)"))
    clock.now += 61.0
    assert "node b (10.0.0.2) is dead" in watch.stuck(FULL)["s0-1"]


def test_what_goes_on_is_told_ever_more_rarely_and_anew_after_a_word() -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    watch.handed_out(job())
    watch.told("s0-1", report())
    told = []
    for _ in range(400):
        clock.now += 5.0
        told += watch.news(FULL)
    assert len(told) == 3  # after 65 s, 260 s and 1040 s
    watch.told("s0-1", report(1))
    clock.now += 60.0
    assert watch.news(FULL) == []
    clock.now += 20_000.0
    assert len(watch.news(FULL)) == 1


def test_a_warning_of_workers_is_told_once() -> None:
    watch = Watch()
    watch.handed_out(job())
    for _ in range(3):
        watch.told("s0-1", report(warnings=["teacher cache: full"]))
    assert watch.news(FULL) == ["teacher cache: full"]
    assert watch.news(FULL) == []
    assert watch.warnings == ("teacher cache: full",)


def test_a_cluster_without_a_node() -> None:
    assert rooms(ClusterSeen()) == "no node"
    assert "does not answer" in rooms(ClusterSeen(ok=False))


def test_what_kdscale_warns_of_in_a_worker_comes_with_its_progress() -> None:
    def train() -> Iterator[list[Progress]]:
        yield []
        for package, text in [("kdscale", "teacher cache: full"), ("torch", "slow")]:
            file = f"/somewhere/{package}/training/_cohort.py"
            warnings.warn_explicit(text, RuntimeWarning, file, 1)
        yield [Progress("c000-s0", "running", ())]

    with pytest.warns(RuntimeWarning) as shown:
        told = list(_with_warnings(train()))
    assert [heard for _, heard in told] == [[], ["teacher cache: full"]]
    assert [str(one.message) for one in shown] == ["teacher cache: full", "slow"]
