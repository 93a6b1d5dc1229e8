"""A sweep's signs of life: a few lines of JSON in the ledger, for whoever asks from elsewhere."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

BEAT_SECONDS = 5.0
_FAREWELL_SECONDS = 10.0


@dataclass(frozen=True)
class CohortSeen:
    """A cohort that Ray Tune has.

    Attributes:
        name: Its name.
        seed: Its seed.
        trials: Its trials.
        epoch: The last epoch that all of its trials have told.
        until: The last epoch that it trains.
        node: Where it trains, as far as that is known.
        state: ``waiting`` for a place, ``starting``, ``measuring`` or ``training``.
        epoch_seconds: What its last epoch took; 0 while there is none.
        images_per_second: Training images that it reads in a second, each for all of its trials.
        silent_seconds: Seconds since it told something.
    """

    name: str
    seed: int
    trials: tuple[str, ...]
    epoch: int
    until: int
    node: str
    state: str
    epoch_seconds: float
    images_per_second: float
    silent_seconds: float


@dataclass(frozen=True)
class Heartbeat:
    """What a sweep said of itself when it was last heard.

    Attributes:
        host: The driver's machine.
        pid: Its process there.
        started: When the sweep began, UTC in ISO 8601.
        seen: When it said this.
        ended: How it ended; empty while it runs.
        doing: What it does where it trains no cohorts yet: Ray starts, the teacher is prepared.
        lanes: Cohorts that may train at once.
        cohorts: Those that do, or wait to.
        epochs_per_second: Epochs of single trials a second; 0 while that is unknown.
        asked: What a cohort asks for.
        there: What the nodes have and have free.
        waiting: Why something waits or is silent for long.
        warnings: What workers have warned of.
        tracking: What MLflow has not taken, or empty.
    """

    host: str
    pid: int
    started: str
    seen: str
    ended: str = ""
    doing: str = ""
    lanes: int = 0
    cohorts: tuple[CohortSeen, ...] = ()
    epochs_per_second: float = 0.0
    asked: str = ""
    there: str = ""
    waiting: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tracking: str = ""

    def to_json(self) -> str:
        """Returns it as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Heartbeat:
        """Returns what `to_json` wrote."""
        saved = json.loads(text)
        cohorts = tuple(
            CohortSeen(**(one | {"trials": tuple(one["trials"])})) for one in saved.pop("cohorts")
        )
        waiting, warnings = tuple(saved.pop("waiting")), tuple(saved.pop("warnings"))
        return Heartbeat(cohorts=cohorts, waiting=waiting, warnings=warnings, **saved)


def first_heartbeat() -> Heartbeat:
    """Returns the first sign of life of a sweep in this process."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Heartbeat(socket.gethostname(), os.getpid(), now, now)


class Heart:
    """Says every few seconds, from a thread of its own, that the sweep lives and what it does.

    No failure to say so harms the sweep: the next beat tries again.
    """

    def __init__(self, save: Callable[[str], None], look: Callable[[Heartbeat], Heartbeat]) -> None:
        """Starts to beat.

        Args:
            save: Keeps the text of a heartbeat.
            look: Returns the heartbeat filled in with what is to be seen now.
        """
        self._save = save
        self._look = look
        self._beat = first_heartbeat()
        self._ended = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kdscale-heart", daemon=True)
        self._thread.start()

    def stop(self, ended: str) -> None:
        """Says how the sweep ended, and is silent from then on.

        Returns within seconds, also where the storage does not answer.
        """
        self._ended = ended
        self._end.set()
        self._thread.join(_FAREWELL_SECONDS)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._beat = self._look(self._beat)
            except Exception as error:
                why = f"the sweep's watch failed: {type(error).__name__}: {error}"
                self._beat = replace(self._beat, waiting=(why,))
            self._say(self._beat)
            self._end.wait(BEAT_SECONDS)
        self._say(replace(self._beat, ended=self._ended, doing="", cohorts=(), waiting=()))

    def _say(self, beat: Heartbeat) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._save(replace(beat, seen=now).to_json())
        except Exception as error:  # the sweep itself writes to the same storage, and says so
            self._beat = replace(beat, waiting=(f"the storage did not take it: {error}",))
