"""How many machines a study takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import study_file

from kdscale.errors import UserError
from kdscale.launch._shape import Shape, shape_of
from kdscale.search import Study, load_study, room


def study(folder: Path, **resources: object) -> Study:
    return load_study(study_file(folder, resources={"cohort": 2, **resources}))


def test_by_default_the_cohorts_of_a_generation_have_room(tmp_path: Path) -> None:
    # 2 configurations under 2 seeds, in cohorts of 2: one for each seed.
    assert shape_of(study(tmp_path)) == Shape(nodes=1, cpus=2, gpus=0, workers=2, cohorts=2)


@pytest.mark.parametrize(
    ("resources", "options", "expected"),
    [
        ({"workers": 4, "gpus_per_worker": 1}, {"cohorts": 1}, Shape(1, 4, 4, 4, 1)),
        ({"workers": 4, "gpus_per_worker": 1}, {"cohorts": 2, "nodes": 2}, Shape(2, 4, 4, 4, 2)),
        ({"gpus_per_worker": 0.25}, {"cohorts": 6}, Shape(1, 6, 2, 6, 6)),
        ({"gpus_per_worker": 2, "cpus_per_worker": 3}, {"cohorts": 2}, Shape(1, 6, 4, 2, 2)),
        ({}, {"cpus": 64}, Shape(1, 64, 0, 2, 64)),
        ({"workers": 4}, {"cohorts": 1, "nodes": 3}, Shape(3, 2, 0, 2, 1)),
    ],
)
def test_a_node_has_its_share(
    tmp_path: Path, resources: dict[str, float], options: dict[str, int], expected: Shape
) -> None:
    assert shape_of(study(tmp_path, **resources), **options) == expected


@settings(deadline=None)
@given(
    workers=st.sampled_from([1, 2, 4, 8]),  # the batch is a multiple of them
    cpus=st.integers(1, 8),
    gpus=st.sampled_from([0, 0.2, 0.25, 0.3, 0.5, 1, 2]),
    cohorts=st.integers(1, 9),
    nodes=st.integers(1, 9),
)
def test_what_is_asked_for_has_room_and_every_node_is_needed(
    tmp_path_factory: pytest.TempPathFactory,
    workers: int,
    cpus: int,
    gpus: float,
    cohorts: int,
    nodes: int,
) -> None:
    asked = study(
        tmp_path_factory.mktemp("study"),
        workers=workers,
        cpus_per_worker=cpus,
        gpus_per_worker=gpus,
    )
    shape = shape_of(asked, cohorts=cohorts, nodes=nodes)
    assert shape.nodes == nodes
    assert shape.cohorts >= cohorts
    less = {"CPU": float(shape.cpus - cpus), "GPU": float(shape.gpus)}
    assert room(asked.resources, [less] * nodes) < shape.cohorts


def test_a_cohort_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must have room for one cohort, 4 worker\(s\) of 1 CPU"):
        shape_of(study(tmp_path, workers=4), cpus=1, nodes=3)
    with pytest.raises(UserError, match=r"1 node\(s\) of 2 CPU, 0 GPU"):
        shape_of(study(tmp_path, gpus_per_worker=1), gpus=0)
