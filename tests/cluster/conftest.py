from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_lib import Testbed
from testbed_lib.hosts import why_not_here


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """Lets the files of this folder take turns: a machine has one testbed."""
    with Path(tempfile.gettempdir(), f"kdscale-testbed-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def testbed(alone: None) -> Iterator[Testbed]:
    """Two hosts with two CPUs each, for all tests of a file."""
    if why := why_not_here():
        pytest.skip(why)
    made = Testbed(say=lambda line: None)
    made.down()
    try:
        made.up(2)
        yield made
    finally:
        made.down()
