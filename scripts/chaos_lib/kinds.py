"""What is killed, cut, filled and torn: each kind returns what it did, "" if there was nothing."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from testbed_lib import HEAD

from chaos_lib.scene import Scene
from kdscale.training import checkpoint_path


def kill_driver(scene: Scene) -> str:
    """Kills `kdscale sweep`."""
    return _kill(scene.driver.process, "the driver")


def kill_worker(scene: Scene) -> str:
    """Kills a process that trains or leads those that do."""
    found = [
        (name, pid, words[0])
        for name in scene.up
        for pid, words in scene.processes(name).items()
        if re.match(r"ray::(?!IDLE|DashboardAgent|RuntimeEnvAgent)", words[0])
    ]
    if not found:
        return ""
    name, pid, title = scene.random.choice(found)
    return _kill(pid, f"{title} on {name}")


def kill_raylet(scene: Scene) -> str:
    """Kills a node's raylet."""
    name = scene.random.choice(scene.up)
    return _kill(next(iter(scene.testbed.daemons(name, "raylet")), None), f"raylet of {name}")


def kill_head(scene: Scene) -> str:
    """Kills the head's GCS, without which there is no cluster."""
    return _kill(next(iter(scene.testbed.daemons(HEAD, "gcs_server")), None), "the head's GCS")


def kill_node(scene: Scene) -> str:
    """Kills all processes of a node at once."""
    name = scene.random.choice(scene.up)
    scene.testbed.kill(name)
    return name


def cut_link(scene: Scene) -> str:
    """Takes a node's link down for some seconds: shorter and longer than Ray takes to notice."""
    name = scene.random.choice(scene.up)
    scene.testbed.cut(name)
    seconds = scene.random.uniform(2, 25)
    time.sleep(seconds)
    return f"{name} for {seconds:.0f} s"


def kill_mlflow(scene: Scene) -> str:
    """Kills the MLflow server."""
    return _kill(scene.mlflow, "the MLflow server")


def kill_database(scene: Scene) -> str:
    """Kills the PostgreSQL server that holds the study."""
    if scene.database is None or not scene.database.runs:
        return ""
    scene.database.kill()
    return "PostgreSQL"


def fill_disk(scene: Scene) -> str:
    """Fills the study's disk for some seconds."""
    ballast = scene.study.parent / "ballast"
    about = os.statvfs(ballast.parent)
    with suppress(OSError), ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, about.f_bavail * about.f_bsize)
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    seconds = scene.random.uniform(2, 12)
    time.sleep(seconds)
    ballast.unlink()
    return f"for {seconds:.0f} s"


def tear_write(scene: Scene) -> str:
    """Cuts the power of all nodes, and undoes what was not yet safe on the disk.

    A file's new content is safe once it was synced, and its new name only once its folder was: so
    the newest checkpoint gets back the content that it had before, and half of a new one lies
    beside it. Of the database's log some bytes at the end are gone.
    """
    newest, before = _newest(scene)
    if before is None:
        return ""
    for name in reversed(scene.up):
        scene.testbed.kill(name)
    done = ["all nodes"]
    newest, before = _newest(scene)
    if newest is not None and before is not None:
        part = newest.with_name(".checkpoint.pt.1")
        part.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
        assert newest == checkpoint_path(newest.parent)
        newest.write_bytes(before.read_bytes())
        scene.watch.forget(newest.parent.name)
        done.append(f"checkpoint of {newest.parent.name}")
    log = scene.study_folder / "study.db-wal"
    if log.exists() and (size := log.stat().st_size):
        lost = scene.random.randint(1, min(size, 20_000))
        os.truncate(log, size - lost)
        done.append(f"{lost} bytes of the database's log")
    return " and ".join(done)


def _newest(scene: Scene) -> tuple[Path | None, Path | None]:
    """Returns the checkpoint that was written last, and a copy of the one before it, if any."""
    found = (scene.study_folder / "trials").glob("*/checkpoint.pt")
    newest = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
    return newest, None if newest is None else scene.watch.before_last(newest.parent.name)


def _kill(pid: int | None, what: str) -> str:
    if pid is None:
        return ""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return what
    return ""


KINDS: dict[str, Callable[[Scene], str]] = {
    "driver": kill_driver,
    "worker": kill_worker,
    "raylet": kill_raylet,
    "head": kill_head,
    "node": kill_node,
    "cut": cut_link,
    "disk": fill_disk,
    "tear": tear_write,
    "mlflow": kill_mlflow,
    "database": kill_database,
}
"""By the name that --kinds takes."""
