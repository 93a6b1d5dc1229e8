"""What holds for all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("kdscale", deadline=None)  # no test asserts a time
settings.load_profile("kdscale")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests of a file in one process, and with them all that use the one testbed."""
    for item in items:
        group = "testbed" if "cluster" in item.path.parts else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
