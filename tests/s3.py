"""A server that speaks S3, in a process of its own: moto's, over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass
class Server:
    """An S3 server on a port of its own; what it holds is gone when it stops."""

    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    def uri(self, folder: str) -> str:
        """Returns the URI of a folder in its bucket."""
        options = f"endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        return f"s3://bucket/{folder}?{options}"

    def start(self) -> None:
        """Starts it, with an empty bucket."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        bucket = urllib.request.Request(f"http://127.0.0.1:{self.port}/bucket", method="PUT")
        while True:  # the test's time limit ends a wait in vain
            try:
                urllib.request.urlopen(bucket).close()
                return
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stops it, as a cable that is pulled does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server() -> Iterator[Server]:
    """Gives a running server, and its keys to this process."""
    server = Server()
    server.start()
    try:
        with mock.patch.dict(os.environ, KEYS):
            yield server
    finally:
        server.stop()


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
