"""Who may write a study: one sweep at a time, on whatever machine.

On one machine a file lock says so at once. Machines are kept apart by a lease in the study's own
storage, which its holder renews every few seconds. A lease that is renewed no more is taken over;
that is told by this machine's clock alone, since those of two machines may differ. Each take-over
raises the lease's fence: what an earlier holder started may not go on.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from kdscale.errors import UserError
from kdscale.search._attempts import now
from kdscale.search._patient import waiting_for_room
from kdscale.search._process import Process, this_process
from kdscale.search._served import ServedStorage

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""A lease that was not renewed for so long is its holder's no more."""

_POLL_SECONDS = 0.5
_KEY = "lease"
_ATTRIBUTES = models.StudyUserAttributeModel.__table__
_STUDIES = models.StudyModel.__table__
_STUDY_ID = select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == bindparam("name"))
_LEASE = select(_ATTRIBUTES.c.value_json).where(
    _ATTRIBUTES.c.study_id == bindparam("study"), _ATTRIBUTES.c.key == _KEY
)
_GUARD = (
    select(_ATTRIBUTES.c.value_json)
    .join(_STUDIES, _STUDIES.c.study_id == _ATTRIBUTES.c.study_id)
    .where(_STUDIES.c.study_name == bindparam("name"), _ATTRIBUTES.c.key == _KEY)
    .with_for_update(read=True, of=_ATTRIBUTES)
)


class NotTheWriterError(UserError):
    """Another sweep has taken the study over; nothing more may be written."""


@dataclass(frozen=True)
class Lease:
    """What the storage says of the study's writer.

    Attributes:
        process: The writer.
        token: What no other writer has.
        fence: How often the study has been taken, this time included, and times before ``--fresh``.
        since: When it was taken, UTC in ISO 8601, by the writer's clock.
        seen: When it was renewed last, by the same clock.
        beat: How often it has been renewed.
        held: Whether the writer is at it; not after it has ended in good order.
    """

    process: Process
    token: str
    fence: int
    since: str
    seen: str
    beat: int = 0
    held: bool = True

    def to_json(self) -> str:
        """Returns it as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Lease:
        """Returns what `to_json` wrote."""
        saved = json.loads(text)
        return Lease(process=Process(**saved.pop("process")), **saved)


class StudyLease:
    """This process's lease of a study."""

    def __init__(
        self,
        storage: RDBStorage,
        study: str,
        on_note: Callable[[str], None] = lambda note: None,
        *,
        above: int = 0,
        beat_seconds: float = BEAT_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Takes nothing yet.

        Args:
            storage: The study's storage.
            study: The study's name in it.
            on_note: Called with what a person should know while they wait.
            above: A number that the fence exceeds, whatever the storage says.
            beat_seconds: How often the lease is renewed.
            stale_seconds: How long it must have gone without, to be taken over.
        """
        self._storage = storage
        self._engine = storage.engine
        self._study = study
        self._token = secrets.token_hex(8)
        self._on_note = on_note
        self._above = above
        self._beat_seconds = beat_seconds
        self._stale_seconds = stale_seconds
        self._lease: Lease | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_always, daemon=True)
        self.lost_at = ""
        """When the holder before was last seen, if it never gave the lease back."""

    @property
    def fence(self) -> int:
        """The lease's fence; 0 if it is not taken."""
        return self._lease.fence if self._lease else 0

    def take(self) -> None:
        """Takes the lease, if the study is there; waits for one that may be stale.

        It waits for a server that is away or a disk that is full as well.

        Raises:
            UserError: If another sweep is at the study.
        """
        if isinstance(self._storage, ServedStorage):
            self._storage.patiently(self._take)
        else:
            waiting_for_room(self._take)

    def _take(self) -> None:
        watched, since = "", 0.0
        while True:
            with self._engine.begin() as connection:
                study_id = self._study_id(connection)
                text = _read(connection, study_id)
            if study_id is None:
                return
            known = None if text is None else Lease.from_json(text)
            ended = known is not None and known.process.has_ended()
            if known is not None and not self._is_free(known):
                if ended is False or watched not in ("", text):
                    raise UserError(self._refusal(known))
                if not watched:
                    watched, since = str(text), time.monotonic()
                    self._on_note(
                        f"waiting up to {self._stale_seconds:.0f} s to see whether "
                        f"{_who(known)} still sweeps this study"
                    )
                if time.monotonic() - since < self._stale_seconds:
                    time.sleep(_POLL_SECONDS)
                    continue
            if self._swap(study_id, text, self._next(known)):
                return

    def guard(self, connection: Connection) -> None:
        """Lets a transaction pass only while this process holds the lease.

        Raises:
            NotTheWriterError: If it does not.
        """
        text = connection.execute(_GUARD, {"name": self._study}).scalar()
        known = None if text is None else Lease.from_json(text)
        if known is None or self._lease is None or known.token != self._lease.token:
            who = "nobody" if known is None else _who(known)
            raise NotTheWriterError(
                f"the study was taken over by {who}: this sweep has written nothing since "
                "(it was not heard of for too long; what it trained is in checkpoints)"
            )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renews the lease while its block runs, and gives it back in the end."""
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()
            if self._lease is not None:
                with suppress(SQLAlchemyError):  # else it becomes stale
                    self._write(replace(self._lease, held=False, seen=now()))

    def _is_free(self, known: Lease) -> bool:
        # Its own as well: the answer to the taking may have been lost.
        return known.token == self._token or not known.held or known.process.has_ended() is True

    def _next(self, known: Lease | None) -> Lease:
        """Returns the lease with which this process follows on another."""
        if self._lease is not None:
            return self._lease
        if known is not None and known.token == self._token:
            return known
        if known is not None and known.held:
            self.lost_at = known.seen
        fence = max(self._above, 0 if known is None else known.fence) + 1
        return Lease(this_process(), self._token, fence, now(), now())

    def _renew_always(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            lease = self._lease
            if lease is not None:
                with suppress(SQLAlchemyError):  # a server that is away: the next beat may find it
                    self._write(replace(lease, beat=lease.beat + 1, seen=now()))

    def _write(self, lease: Lease) -> None:
        """Writes the lease anew if it is still this process's."""
        assert self._lease is not None
        with self._engine.begin() as connection:
            study_id = self._study_id(connection)
            text = _read(connection, study_id)
        # Not compared with what was written last: a server that failed may have kept it or not.
        if text is not None and Lease.from_json(text).token == self._lease.token:
            self._swap(study_id, text, lease)

    def _swap(self, study_id: int | None, before: str | None, lease: Lease) -> bool:
        """Writes a lease in place of what was read, and returns whether that was still there."""
        text = lease.to_json()
        row = {"study_id": study_id, "key": _KEY, "value_json": text}
        try:
            with self._engine.begin() as connection:
                if before is None:
                    connection.execute(insert(_ATTRIBUTES).values(row))
                else:
                    changed = connection.execute(
                        update(_ATTRIBUTES)
                        .where(_ATTRIBUTES.c.study_id == study_id, _ATTRIBUTES.c.key == _KEY)
                        .where(_ATTRIBUTES.c.value_json == before)
                        .values(value_json=text)
                    )
                    if changed.rowcount != 1:
                        return False
        except IntegrityError:  # another one was first
            return False
        self._lease = lease
        return True

    def _study_id(self, connection: Connection) -> int | None:
        found: int | None = connection.execute(_STUDY_ID, {"name": self._study}).scalar()
        return found

    def _refusal(self, known: Lease) -> str:
        return (
            f"{self._study}: one sweep at a time may write a study, but {_who(known)} is at it "
            f"since {known.since}, and was last seen at {known.seen} by its own clock (wait for "
            f"it, or stop it there: kill {known.process.pid}; one that has died is followed "
            f"after {self._stale_seconds:.0f} s)"
        )


def _read(connection: Connection, study_id: int | None) -> str | None:
    found: str | None = connection.execute(_LEASE, {"study": study_id}).scalar()
    return found


def _who(lease: Lease) -> str:
    return f"process {lease.process.pid} on {lease.process.host}"


@contextmanager
def sweep_lock(folder: Path) -> Iterator[None]:
    """Keeps every other sweep of this machine out of a study folder.

    Raises:
        UserError: If another process sweeps this study now, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "sweep.lock").open("a+")
    except OSError as error:
        raise UserError(f"{folder}: must be a folder to write to, but: {error}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(
                f"{folder}: one sweep at a time may write a study, but process "
                f"{file.read().strip() or '?'} is at it"
            ) from None
        with suppress(OSError):  # a full disk: the lock holds, and only its refusals say less
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        yield
