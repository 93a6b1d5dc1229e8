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
    "upscaling_speed": 1,
    "provider": {
        "type": "fake_multinode",
        # As Ray's own tests set them: these nodes have one address, and nothing is set up on them.
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "use_node_id_as_ip": True,
    },
    # What Ray's launcher would fill in.
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "file_mounts_sync_continuously": False,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 2},
    },
}


@pytest.fixture
def growing(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Testbed]:
    """A head without CPUs, as on Kubernetes, where Ray's autoscaler may start two nodes of one.

    Its first version: Ray's wheel lacks a file that the second one needs for such nodes.
    """
    if why := why_not_here():
        pytest.skip(why)
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
    config = tmp_path / "cluster.yaml"
    config.write_text(dump_yaml(CLUSTER))
    testbed = Testbed(say=lambda line: None, head_options=("--autoscaling-config", str(config)))
    testbed.down()
    try:
        testbed.up(1, cpus=0)
        yield testbed
    finally:
        testbed.down()


def test_a_cluster_grows_with_the_cohorts_there_are(growing: Testbed, tmp_path: Path) -> None:
    path = study_file(tmp_path / "grown", seeds=3)
    with sweeping(growing, path) as sweep:
        said = sweep.wait()
    assert "; 1 cohort(s) at once" in " ".join(said.split())
    assert "nodes have come or gone: now 2 cohort(s) at once" in said
    here = study_file(tmp_path / "here", seeds=3)
    left_alone(here)
    assert not differences(here, path)
