"""Between a lane's driver and its workers: jobs one way, reports the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

Report = dict[str, Any]
"""What a job hands to Ray: the cohort's name and either progress or an error."""


class Mailbox:
    """One job at a time, for the workers of a lane.

    A Ray actor of its own, because driver and workers both wait for it. Once a worker has failed
    no job is taken any more, and nothing counts that the others still say.
    """

    def __init__(self, workers: int) -> None:
        """Starts without a job.

        Args:
            workers: How many work on a job together.
        """
        self._workers = workers
        self._turn = 0
        self._job: Mapping[str, Any] | None = None
        self._closed = False
        self._failed = False
        self._reports: deque[Report] = deque()
        self._here: dict[str, str] = {}
        """By worker, its node."""
        self._done: set[str] = set()
        self._changed = asyncio.Condition()

    async def submit(self, job: Mapping[str, Any]) -> None:
        """Gives the workers their next job, which ends at once if they have failed."""
        self._turn += 1
        self._job = None if self._failed else job
        self._done = set()
        self._reports.clear()
        await self._tell_all()

    async def next(self) -> Report | None:
        """Returns the job's next report, as soon as there is one; None when the job has ended."""
        await self._until(lambda: bool(self._reports) or self._job is None)
        return self._reports.popleft() if self._reports else None

    async def take(
        self, worker: str, after: int, node: str = ""
    ) -> tuple[int, Mapping[str, Any]] | None:
        """Returns a job and its number, as soon as there is one; None when the lane has ended.

        Args:
            worker: Who asks.
            after: The number of the job that it had last; 0 if none.
            node: Where it is.
        """
        self._here[worker] = node
        await self._until(
            lambda: self._closed or self._failed or (self._job is not None and self._turn > after)
        )
        return None if self._closed or self._job is None else (self._turn, self._job)

    async def all_came(self) -> bool:
        """Returns whether as many workers as belong to a lane are there."""
        return len(self._here) == self._workers

    async def nodes(self) -> list[str]:
        """Returns where the workers are."""
        return list(self._here.values())

    async def report(self, turn: int, report: Report) -> None:
        """Takes what a worker tells of a job."""
        if self._counts(turn):
            self._reports.append(report)
            await self._tell_all()

    async def done(self, worker: str, turn: int) -> None:
        """Takes note that a worker has ended its part of a job."""
        if self._counts(turn):
            self._done.add(worker)
            if len(self._done) == self._workers:
                self._job = None
            await self._tell_all()

    async def fail(self, why: Report) -> None:
        """Ends the lane, and its job if there is one, with what is told of the workers."""
        self._failed = True
        if self._job is not None:
            self._reports.append({"cohort": self._job["cohort"], **why})
            self._job = None
        await self._tell_all()

    async def close(self) -> bool:
        """Sends the workers home, and returns whether they have no job to finish first."""
        self._closed = True
        await self._tell_all()
        return self._job is None

    def _counts(self, turn: int) -> bool:
        return self._job is not None and turn == self._turn

    async def _tell_all(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, true: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(true)
