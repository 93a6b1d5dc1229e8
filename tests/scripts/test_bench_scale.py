from __future__ import annotations

from pathlib import Path

import bench_scale
import pytest


@pytest.mark.slow
def test_a_sweep_of_trials_that_train_nothing_tells_what_it_costs(tmp_path: Path) -> None:
    found = bench_scale.run("noop", "kdscale", 20, 4, tmp_path)
    assert 0 < found["plan_seconds"] < found["seconds"]
    assert found["cpu_seconds"] > 0
    assert set(found["mib"]) == {"start", "planned", "warm", "end"}


def test_a_study_of_ended_trials_is_taken_up(tmp_path: Path) -> None:
    assert bench_scale.run("noop", "resume", 20, 4, tmp_path) == {"made": True}
    found = bench_scale.run("noop", "resume", 20, 4, tmp_path)
    assert found["all"] == pytest.approx(found["open"] + found["queue"])


def test_a_simulated_cluster_trains_every_trial(tmp_path: Path) -> None:
    found = bench_scale.run("dispatch", 2, 64, 4, tmp_path)
    assert found["cohorts"] >= 64 / 4
    assert found["virtual_hours"] > 0
