"""Sweeps that an autoscaler starts nodes for; Ray's own, with nodes that are raylets beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos_lib.compare import differences
from testbed_lib import Testbed
from testbed_lib.hosts import why_not_here

from kdscale.search._yaml import dump_yaml

from .sweeps import left_alone, study_file, sweeping

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CLUSTER: dict[str, Any] = {
    "cluster_name": "growing",
    "max_workers": 2,
    "idle_timeout_minutes": 30,
    "provider": {"type": "fake_multinode"},
    "auth": {},
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 2},
    },
}


@pytest.fixture(scope="module")
def growing(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """A head with one CPU, and an autoscaler that may start two nodes with another one each."""
    if why := why_not_here():
        pytest.skip(why)
    config = tmp_path_factory.mktemp("autoscaler") / "cluster.yaml"
    config.write_text(dump_yaml(CLUSTER))
    testbed = Testbed(say=lambda line: None, head_options=("--autoscaling-config", str(config)))
    testbed.down()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_FAKE_CLUSTER", "1")
        patch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
        testbed.up(1, cpus=1)
        yield testbed
        testbed.down()


def test_a_cohort_for_which_there_is_no_room_yet_gets_its_node(
    growing: Testbed, tmp_path: Path
) -> None:
    path = study_file(tmp_path / "grown", workers=2)
    with sweeping(growing, path) as sweep:
        sweep.wait()
    here = study_file(tmp_path / "here", workers=2)
    left_alone(here)
    assert not differences(here, path)


def test_more_cohorts_than_there_is_room_for_get_nodes(growing: Testbed, tmp_path: Path) -> None:
    path = study_file(tmp_path / "more", seeds=3)
    with sweeping(growing, path) as sweep:
        said = sweep.wait()
    assert "; 2 cohort(s) at once" in " ".join(said.split())
    assert "nodes have come or gone: now 3 cohort(s) at once" in said
    here = study_file(tmp_path / "here", seeds=3)
    left_alone(here)
    assert not differences(here, path)
