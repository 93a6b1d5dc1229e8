"""A real PostgreSQL server in a folder, which tests and chaos kill and start again.

It runs as a user of its own where the tests run as root, which PostgreSQL refuses. Everybody needs
a password, so that tests see whether it is kept.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

PASSWORD = "s3cret"
_USER = "postgres"
_BINARIES = "/usr/lib/postgresql/*/bin"


def why_not_here() -> str:
    """Returns what keeps this machine from running PostgreSQL, "" if nothing does.

    It is installed from Debian where it is not there.
    """
    if _binaries() is None:
        if os.geteuid() != 0:
            return "PostgreSQL is not here, and installing it needs root"
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        apt = ["apt-get", "--quiet", "--yes"]
        wanted = [*apt, "install", "--no-install-recommends", "postgresql"]
        try:
            for command in ([*apt, "update"], wanted):
                subprocess.run(command, env=quiet, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"these tests need postgresql of Debian: {error}"
    return "" if _binaries() else "Debian's postgresql has put its programs elsewhere"


def _binaries() -> Path | None:
    found = sorted(Path("/").glob(f"{_BINARIES[1:]}/postgres"))
    return found[-1].parent if found else None


class Postgres:
    """A PostgreSQL server with one database, ``team``.

    Args:
        folder: An empty folder, which the server's user may reach.
        host: The address that it listens on.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self._folder = folder
        self._host = host
        with socket.socket() as probe:
            probe.bind((host, 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        binaries = _binaries()
        assert binaries is not None, why_not_here()
        self._binaries = binaries
        if os.geteuid() == 0:
            shutil.chown(folder, _USER)
        words = folder / "password"
        words.write_text(PASSWORD)
        words.chmod(0o644)
        self._run(
            *("initdb", "--pgdata", str(folder / "data"), "--username", _USER, "--no-sync"),
            *("--auth", "scram-sha-256", "--pwfile", str(words), "--encoding", "UTF8"),
        )
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database, with the password."""
        return f"postgresql://{_USER}:{PASSWORD}@{self._host}:{self.port}/team"

    @property
    def plain_url(self) -> str:
        """The same without the password."""
        return f"postgresql://{_USER}@{self._host}:{self.port}/team"

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        first = not (self._folder / "log").exists()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(
                    *("postgres", "-D", str(self._folder / "data"), "-h", self._host),
                    *("-p", str(self.port), "-k", str(self._folder), "-c", "max_connections=50"),
                ),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self._answers():  # the test's time limit ends a wait in vain
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        if first:
            self.query("CREATE DATABASE team", database=_USER)

    def kill(self) -> None:
        """Ends it with SIGKILL, and every process that it has started, in the middle of all."""
        if self._process is None:
            return
        # Its processes lead sessions of their own: the data folder tells which they are.
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def restart(self) -> None:
        """Kills it, and starts it again."""
        self.kill()
        self.start()

    def query(self, text: str, database: str = "team") -> list[Sequence[object]]:
        """Returns the rows of a query."""
        import psycopg

        with psycopg.connect(
            host=self._host,
            port=self.port,
            user=_USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(text.encode())
            return list(cursor.fetchall()) if cursor.description else []

    def _answers(self) -> bool:
        import psycopg

        try:
            self.query("SELECT 1", database=_USER)
        except psycopg.OperationalError:
            return False
        return True

    def _command(self, name: str, *words: str) -> list[str]:
        command = [str(self._binaries / name), *words]
        if os.geteuid() != 0:
            return command
        user = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
        return [*user, *command]

    def _run(self, name: str, *words: str) -> None:
        subprocess.run(
            self._command(name, *words), check=True, capture_output=True, cwd=self._folder
        )


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [number for child in map(int, text.split()) for number in (child, *_children(child))]


@contextmanager
def postgres(host: str = "127.0.0.1") -> Iterator[Postgres]:
    """Gives a running server, of which nothing is left in the end.

    Args:
        host: The address that it listens on.
    """
    folder = Path(mkdtemp(prefix="kdscale-postgres-"))
    folder.chmod(0o755)
    server = Postgres(folder, host)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
