"""The thread that uploads: order, repetition, and storage that is away."""

from __future__ import annotations

import threading
import warnings

import pytest

from kdscale.files import Mirror, patiently
from kdscale.files import _mirror as module


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_SECONDS", 0.01)


class Storage:
    """Takes what it is given, except while it is away."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.got: list[str] = []
        self.tries = 0

    def put(self, name: str) -> None:
        self.tries += 1
        if self.away:
            raise OSError("nobody\nlistens")
        self.got.append(name)


def test_work_is_done_in_order() -> None:
    storage, mirror = Storage(), Mirror("there")
    assert mirror.settle()
    for number in range(50):
        mirror.push(str(number), lambda number=number: storage.put(str(number)))  # type: ignore[misc]
    assert mirror.settle()
    assert storage.got == [str(number) for number in range(50)]
    assert mirror.left == ()
    assert mirror.close(1.0) == ()


def test_newer_work_replaces_older_of_the_same_name() -> None:
    storage, mirror, go = Storage(), Mirror("there"), threading.Event()
    mirror.push("first", go.wait)  # type: ignore[arg-type]
    for number in range(3):
        mirror.push("a", lambda number=number: storage.put(f"a{number}"))  # type: ignore[misc]
    assert "a" in mirror.left
    go.set()
    assert mirror.settle()
    assert storage.got == ["a2"]


def test_storage_that_is_away_is_told_once_and_tried_until_it_is_back() -> None:
    storage, mirror = Storage(away=True), Mirror("s3://there")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        mirror.push("a", lambda: storage.put("a"))
        assert not mirror.settle()  # it does not wait for what is away
        mirror.push("b", lambda: storage.put("b"))
        mirror.push("a", lambda: storage.put("newer a"))
        assert not mirror.settle()
        while storage.tries < 10:
            pass
    assert mirror.problem.startswith("s3://there is away (nobody listens): training goes on")
    assert len(told) == 1
    assert set(mirror.left) == {"a", "b"}
    storage.away = False
    while mirror.left:
        pass
    assert mirror.settle()
    assert mirror.problem == ""
    assert storage.got == ["newer a", "b"]


@pytest.mark.filterwarnings("ignore:there is away")
def test_what_is_left_at_the_end_is_said() -> None:
    storage, mirror = Storage(away=True), Mirror("there")
    mirror.push("a", lambda: storage.put("a"))
    mirror.push("b", lambda: storage.put("b"))
    assert mirror.close(0.05) == ("a", "b")


def test_patience_has_an_end() -> None:
    storage = Storage(away=True)
    with pytest.raises(OSError, match="nobody"):
        patiently(lambda: storage.put("a"), 0.05)
    assert storage.tries > 1
    storage.away = False
    patiently(lambda: storage.put("a"), 0.0)
    assert storage.got == ["a"]
