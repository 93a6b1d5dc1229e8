"""A Ray cluster of several hosts on one machine, made of Linux namespaces."""

from testbed_lib.testbed import HEAD, Testbed, TestbedError

__all__ = ["HEAD", "Testbed", "TestbedError"]
