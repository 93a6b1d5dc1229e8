"""Workers that are killed and nodes that go, under a real Ray of several nodes."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdscale.records import TrialRecord
from kdscale.search import sweep
from kdscale.search._cluster import QUIET
from kdscale.search._remote_lease import LEASES

from .here import Listener, numbers, swept_here
from .studies import make_study

pytestmark = pytest.mark.slow

NETWORK: dict[str, Any] = {"model": "resnet8", "args": {"width": 4}}


def one_trial(folder: Path) -> Any:
    return make_study(
        name="lost",
        task={
            "data": {"name": "icons100", "train_images": 200},
            "teacher": NETWORK | {"epochs": 1, "inference": "folded"},
            "student": NETWORK,
            "recipe": {"lr": 0.1, "batch_size": 50},
        },
        search={"method": "random"},
        budget={"trials": 1, "epochs": 60},
        resources={"max_failures": 1},
        undistilled=False,
        storage={"folder": str(folder)},
    )


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head without CPUs, and a node that may go."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1)
    ray.init(
        address=cluster.address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class Breaker(Listener):
    """Kills the first attempt's worker, and the nodes of the second and the third.

    Each after two epochs of its own; how many more it trains before it ends does not matter.
    """

    def __init__(self, folder: Path, nodes: Any) -> None:
        super().__init__()
        self._folder = folder
        self._nodes = nodes
        self._breaks = {1: self._kill_worker, 2: self._remove_node, 3: self._remove_node}

    def on_change(self, trial: TrialRecord) -> None:
        super().on_change(trial)
        attempt = trial.attempts[-1] if trial.attempts else None
        if attempt is not None and len(trial.history) >= attempt.after_epoch + 2:
            self._breaks.pop(attempt.number, lambda: None)()

    def _kill_worker(self) -> None:
        (path,) = (self._folder / LEASES).glob("*.json")
        os.kill(json.loads(path.read_text())["process"]["pid"], signal.SIGKILL)

    def _remove_node(self) -> None:
        (old,) = self._nodes.worker_nodes
        self._nodes.add_node(num_cpus=1)
        self._nodes.remove_node(old, allow_graceful=False)


def test_a_lost_node_is_no_crash_and_changes_nothing(tmp_path: Path, nodes: Any) -> None:
    study = one_trial(tmp_path)
    outcome = sweep(study, Breaker(study.folder, nodes))
    assert outcome.complete
    (trial,) = outcome.ledger.trials
    reasons = [attempt.reason for attempt in trial.attempts]
    assert reasons == ["worker crash", "node lost", "node lost", "done"]
    for before, after in zip(trial.attempts, trial.attempts[1:], strict=False):
        assert before.epoch == after.after_epoch >= 2
        assert len(before.nodes) == 1
        assert before.end <= after.start
    assert outcome.losses == "3 attempt(s) were lost: 2 node lost, 1 worker crash"
    assert numbers(outcome.ledger) == numbers(swept_here(one_trial(tmp_path / "here")))
    assert not list((study.folder / LEASES).glob("*.json"))


def test_a_node_that_does_not_answer_is_waited_for_until_ray_names_it(nodes: Any) -> None:
    from kdscale.search._nodes import alive_nodes, one_goes

    (old,) = nodes.worker_nodes
    assert old.node_id in alive_nodes()
    for_ever = 1e9  # the test's time limit ends a wait in vain
    assert not one_goes(alive_nodes(), for_ever)
    nodes.remove_node(old, allow_graceful=False)
    assert one_goes([old.node_id], for_ever)
    assert old.node_id not in alive_nodes()
