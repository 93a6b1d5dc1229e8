"""Remote folders: on a disk, and on a server that speaks S3."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3 import Server, s3_server

from kdscale.files import Remote, uri_problem


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "file":
        return Remote((tmp_path / "remote folder").as_uri())
    found: Server = request.getfixturevalue("server")
    return Remote(found.uri("some/folder"))


def test_what_is_put_is_got(remote: Remote, tmp_path: Path) -> None:
    remote.check()
    assert remote.sizes() == {}
    assert remote.get("a/b.pt") is None
    remote.put(b"one", "a/b.pt")
    assert remote.get("a/b.pt") == b"one"
    file = tmp_path / "file"
    file.write_bytes(os.urandom(6_000_000))
    remote.put(file, "a/b.pt")
    remote.put(b"", "empty")
    assert remote.get("a/b.pt") == file.read_bytes()
    assert remote.sizes() == {"a/b.pt": 6_000_000, "empty": 0}
    assert remote.sizes("a") == {"a/b.pt": 6_000_000}
    assert remote.below("a").sizes() == {"b.pt": 6_000_000}
    assert remote.sizes("nothing") == {}

    copy = tmp_path / "new" / "copy"
    assert remote.fetch("a/b.pt", copy)
    assert copy.read_bytes() == file.read_bytes()
    assert not remote.fetch("c", copy.with_name("c"))
    assert os.listdir(copy.parent) == ["copy"]

    again = pickle.loads(pickle.dumps(remote))
    again.delete("a/b.pt")
    again.delete("a/b.pt")
    assert remote.sizes() == {"empty": 0}


@pytest.mark.slow
def test_an_upload_killed_in_the_middle_leaves_the_old_object(
    server: Server, tmp_path: Path
) -> None:
    remote = Remote(server.uri("killed"))
    remote.put(b"old", "a.pt")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(200_000_000))
    code = (
        "import sys; from pathlib import Path; from kdscale.files import Remote\n"
        "remote = Remote(sys.argv[1]); remote.get('a.pt'); print('now', flush=True)\n"
        "remote.put(Path(sys.argv[2]), 'a.pt')\n"
    )
    command = [sys.executable, "-c", code, remote.uri, str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):  # it is under way by then, and takes seconds
        process.wait(0.3)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert remote.get("a.pt") == b"old"
    process.stdout.close()


@pytest.mark.slow
def test_storage_that_is_not_there_is_an_os_error(server: Server) -> None:
    absent = Server()
    for remote in (Remote(absent.uri("a")), Remote(server.uri("a").replace("bucket", "basket"))):
        with pytest.raises(OSError, match=r"."):
            remote.put(b"", "a")


def test_unknown_options_are_an_os_error() -> None:
    with pytest.raises(OSError, match="foo"):
        Remote("s3://bucket/a?foo=1&region=us-east-1").get("a")


def test_a_password_is_nowhere_in_the_text() -> None:
    assert str(Remote("s3://bucket/a?access=1")) == "s3://bucket/a"


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("s3://bucket/folder?scheme=http", ""),
        ("s3://bucket", ""),
        ("gs://bucket/a", ""),
        ("file:///mnt/nfs", ""),
        ("s3://key:secret@bucket/a", "must hold no password"),
        ("s3://key@bucket/a", "must hold no password"),
        ("/mnt/nfs", "must be a URI of s3"),
        ("http://host/a", "must be a URI of s3"),
        ("s3://", "must name a bucket"),
        ("file:///", "must name a bucket"),
    ],
)
def test_what_a_uri_must_be(uri: str, rule: str) -> None:
    assert uri_problem(uri).startswith(rule)
    assert bool(uri_problem(uri)) == bool(rule)
