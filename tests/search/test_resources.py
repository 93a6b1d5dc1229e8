from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kdscale.errors import UserError
from kdscale.search._resources import lanes, worker_bundle
from kdscale.search._sections import ResourcesSpec


def resources(**changes: object) -> ResourcesSpec:
    return ResourcesSpec.model_validate(changes)


@pytest.mark.parametrize(
    ("asked", "nodes", "wanted"),
    [
        ({}, [{"CPU": 2}], 2),
        ({"cpus_per_worker": 3}, [{"CPU": 8}], 2),
        ({"workers": 2}, [{"CPU": 3}, {"CPU": 3}], 3),
        # Workers are not divided between nodes: 3 + 3 CPUs have no room for a worker of 4.
        ({"workers": 2, "cpus_per_worker": 2}, [{"CPU": 3}, {"CPU": 3}], 1),
        ({"gpus_per_worker": 1}, [{"CPU": 64, "GPU": 8}], 8),
        ({"gpus_per_worker": 1, "cpus_per_worker": 16}, [{"CPU": 64, "GPU": 8}], 4),
        ({"gpus_per_worker": 0.5}, [{"CPU": 64, "GPU": 2}], 4),
        ({"gpus_per_worker": 0.1}, [{"CPU": 64, "GPU": 1}], 10),
        ({"gpus_per_worker": 0.3}, [{"CPU": 64, "GPU": 3}], 9),  # three on each, 0.1 left over
        ({"gpus_per_worker": 0.6}, [{"CPU": 64, "GPU": 2}], 2),  # 0.4 + 0.4 are no 0.6
        ({"gpus_per_worker": 1}, [{"CPU": 8}, {"CPU": 8, "GPU": 2}], 2),
        ({"workers": 4, "gpus_per_worker": 1}, [{"CPU": 8, "GPU": 3}, {"CPU": 8, "GPU": 3}], 1),
    ],
)
def test_lanes_are_the_cohorts_that_fit(
    asked: dict[str, object], nodes: list[dict[str, float]], wanted: int
) -> None:
    assert lanes(resources(**asked), nodes) == wanted


@given(
    workers=st.integers(1, 4),
    cpus=st.integers(1, 4),
    gpus=st.sampled_from(["0", "0.1", "0.25", "0.3", "0.5", "0.6", "1", "2"]),
    nodes=st.lists(st.tuples(st.integers(0, 16), st.integers(0, 8)), min_size=1, max_size=4),
)
def test_lanes_never_exceed_what_fits_and_leave_no_cohort_out(
    workers: int, cpus: int, gpus: str, nodes: list[tuple[int, int]]
) -> None:
    share = Fraction(gpus)
    slots = 0
    for node_cpus, node_gpus in nodes:  # placed one by one, exactly, as Ray would
        free = [Fraction(1)] * node_gpus
        while node_cpus >= cpus:
            if share >= 1:
                whole = [index for index, left in enumerate(free) if left == 1]
                if len(whole) < share:
                    break
                for index in whole[: int(share)]:
                    free[index] = Fraction(0)
            elif share > 0:
                at = next((index for index, left in enumerate(free) if left >= share), None)
                if at is None:
                    break
                free[at] -= share
            node_cpus -= cpus
            slots += 1
    asked = resources(workers=workers, cpus_per_worker=cpus, gpus_per_worker=float(gpus))
    there = [{"CPU": float(c)} | ({"GPU": float(g)} if g else {}) for c, g in nodes]
    if slots < workers:
        with pytest.raises(UserError, match="must have room"):
            lanes(asked, there)
    else:
        assert lanes(asked, there) == slots // workers


def test_what_does_not_fit_is_refused_with_what_is_asked_and_what_is_there() -> None:
    asked = resources(workers=2, cpus_per_worker=4, gpus_per_worker=0.5)
    with pytest.raises(UserError) as error:
        lanes(asked, [{"CPU": 2.0, "memory": 1e9}, {"CPU": 16.0, "GPU": 0.0}])
    text = str(error.value)
    assert "2 worker(s) of 4 CPU, 0.5 GPU each" in text
    assert "2 CPU, 0 GPU; 16 CPU, 0 GPU" in text
    assert "kdscale doctor" in text


def test_a_cluster_that_can_grow_is_not_refused() -> None:
    asked = resources(gpus_per_worker=1)
    assert lanes(asked, [{"CPU": 2.0}], may_grow=lambda: True) == 1
    assert lanes(asked, [{"CPU": 2.0, "GPU": 2.0}], may_grow=lambda: True) == 2


def test_a_worker_without_gpus_asks_for_none() -> None:
    assert worker_bundle(resources(cpus_per_worker=2)) == {"CPU": 2.0}
    assert worker_bundle(resources(gpus_per_worker=0.5)) == {"CPU": 1.0, "GPU": 0.5}


def test_more_than_one_gpu_is_whole_gpus() -> None:
    assert resources(gpus_per_worker=2).gpus_per_worker == 2
    with pytest.raises(ValidationError, match="must be a whole number if it is more than 1"):
        resources(gpus_per_worker=1.5)
