from __future__ import annotations

from collections.abc import Iterator

import pytest
from testbed_lib import Testbed
from testbed_lib.hosts import why_not_here


@pytest.fixture(scope="module")
def testbed() -> Iterator[Testbed]:
    """Two hosts with two CPUs each, for all tests of a file."""
    if why := why_not_here():
        pytest.skip(why)
    made = Testbed(say=lambda line: None)
    made.down()
    made.up(2)
    yield made
    made.down()
