from __future__ import annotations

import bench_tracking
import pytest


def test_a_command_is_timed_in_a_process_of_its_own() -> None:
    seconds, cpu = bench_tracking.seconds_of("methods", "kd")
    assert cpu > 0.0
    assert seconds > 0.0


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(SystemExit, match='there is no method "nothing"'):
        bench_tracking.seconds_of("methods", "nothing")
