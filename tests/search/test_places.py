"""Places that nobody trains in, under a real Ray."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table

from kdscale.search._places import Places, has_autoscaler
from kdscale.search._sections import ResourcesSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]


def holder() -> Any:
    """Returns an actor that takes places: one that it gets, and one that it waits for."""

    class Holder:  # here, because Ray's workers cannot import this file
        def take(self) -> list[str]:
            groups = [placement_group([{"CPU": 0.5}]), placement_group([{"CPU": 99}])]
            groups[0].wait(60)
            return [group.id.hex() for group in groups]

    return ray.remote(num_cpus=0)(Holder).remote()


def states(groups: list[str]) -> list[str]:
    table = placement_group_table()
    return [table[group]["state"] for group in groups]


def test_what_dead_actors_hold_is_given_back_and_nothing_else() -> None:
    places = Places(ResourcesSpec(workers=2))
    mine = placement_group([{"CPU": 0.5}])
    dead, alive = holder(), holder()
    left = ray.get(dead.take.remote())
    held = [mine.id.hex(), *ray.get(alive.take.remote())]
    places.look(2, 2)
    assert states(left) == ["CREATED", "PENDING"]
    ray.kill(dead)
    end = time.monotonic() + 60
    while states(left) != ["REMOVED", "REMOVED"] and time.monotonic() < end:
        places.look(2, 2)
        time.sleep(0.1)
    assert states(left) == ["REMOVED", "REMOVED"]
    assert "REMOVED" not in states(held)


def test_without_an_autoscaler_nothing_is_asked_for() -> None:
    assert not has_autoscaler()
    before = set(placement_group_table())
    Places(ResourcesSpec()).look(1, 9)
    assert set(placement_group_table()) == before
