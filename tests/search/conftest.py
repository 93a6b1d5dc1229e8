from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from kdscale.search._cluster import QUIET


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all sweeps of a file: `sweep` joins the one that is there."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()
