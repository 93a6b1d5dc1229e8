"""The mailbox of a lane, without Ray: driver and workers take turns in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from kdscale.search._mailbox import Mailbox

FIRST, SECOND = {"cohort": "first"}, {"cohort": "second"}


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, timeout=60))


async def waits(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Returns whether something is still waited for when everyone has had a turn."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(10):
        await asyncio.sleep(0)
    return task.cancel()


def test_a_job_ends_when_every_worker_has_done_its_part() -> None:
    async def story() -> None:
        box = Mailbox(2)
        first = asyncio.ensure_future(box.take("a", 0))  # workers may be there before the job
        await box.submit(FIRST)
        assert await first == (1, FIRST)
        assert await box.take("b", 0) == (1, FIRST)
        await box.report(1, {"epoch": 1})
        await box.report(1, {"epoch": 2})
        await box.done("a", 1)
        assert [await box.next(), await box.next()] == [{"epoch": 1}, {"epoch": 2}]
        assert await waits(box.next())
        assert await waits(box.take("a", 1))  # it does not get the same job twice
        await box.done("b", 1)
        assert await box.next() is None
        await box.submit(SECOND)
        assert await box.take("a", 1) == await box.take("b", 1) == (2, SECOND)

    run(story())


def test_all_have_come_when_as_many_workers_are_there_as_belong_to_a_lane() -> None:
    async def story() -> None:
        box = Mailbox(2)
        first = asyncio.ensure_future(box.take("a", 0))
        await asyncio.sleep(0)
        assert not await box.all_came()
        await box.submit(FIRST)
        await first
        await box.take("b", 0, "there")
        assert await box.all_came()
        assert await box.nodes() == ["", "there"]

    run(story())


def test_a_failure_ends_the_lane_and_what_the_failed_still_say_does_not_count() -> None:
    async def story() -> None:
        box = Mailbox(2)
        await box.submit(FIRST)
        await box.take("a", 0)
        await box.take("b", 0)
        await box.report(1, {"epoch": 1})
        await box.fail({"crashed": "worker 1 died"})
        await box.report(1, {"epoch": 9})
        assert [await box.next() for _ in range(3)] == [
            {"epoch": 1},
            {"cohort": "first", "crashed": "worker 1 died"},
            None,
        ]
        assert await box.take("a", 1) is None

    run(story())


def test_workers_that_fail_between_two_jobs_harm_neither() -> None:
    async def story() -> None:
        box = Mailbox(1)
        await box.submit(FIRST)
        await box.take("a", 0)
        await box.done("a", 1)
        await box.fail({"crashed": "worker 0 died"})
        assert await box.next() is None
        await box.submit(SECOND)  # the driver had yet to hear of it
        assert await box.next() is None

    run(story())


def test_a_closed_lane_sends_its_workers_home() -> None:
    async def story() -> None:
        box = Mailbox(2)
        waiting = asyncio.ensure_future(box.take("a", 0))
        await asyncio.sleep(0)
        assert await box.close()
        assert await waiting is None
        assert await box.take("b", 0) is None

        box = Mailbox(1)
        await box.submit(FIRST)
        await box.take("a", 0)
        assert not await box.close()

    run(story())
