"""The attempts of a trial: how one begins, how it ends, and what that means for the next one."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from kdscale.records import AttemptReason, AttemptRecord, TrialRecord, TrialState

Attempts = tuple[AttemptRecord, ...]

_LOST: tuple[AttemptReason, ...] = (
    "node lost",
    "preempted",
    "worker crash",
    "driver lost",
    "out of memory",
)
"""Reasons that cost a sweep time and nobody asked for, in the order in which they are told."""

_MOST_DETAIL = 200


@dataclass(frozen=True)
class Loss:
    """Why a cohort did not come to its end.

    Attributes:
        reason: The kind of loss.
        detail: In one line.
    """

    reason: AttemptReason
    detail: str

    @property
    def counts(self) -> bool:
        """Whether a trial has only so many of them; machines may go as often as they like."""
        return self.reason in ("worker crash", "out of memory")

    @property
    def is_certain(self) -> bool:
        """Whether the workers have ended; those of a node that does not answer may still train."""
        return self.reason not in ("node lost", "preempted")


def now() -> str:
    """Returns the time, UTC in ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_node() -> str:
    """Returns this machine's name and address, as an attempt records them."""
    import ray

    # Ray's address is the one that other nodes know; without Ray there are no other nodes.
    address = ray.util.get_node_ip_address() if ray.is_initialized() else "127.0.0.1"
    return f"{socket.gethostname()} ({address})"


def begun(attempts: Attempts, count: int, epoch: int, lost_at: str = "") -> Attempts:
    """Returns the attempts with another one.

    Args:
        attempts: Those so far. One that never ended was its driver's, which is lost.
        count: How many there have been.
        epoch: Epochs that are trained and recorded.
        lost_at: When the lost driver was last seen, if it is known.
    """
    before = ended(attempts, "driver lost", epoch, at=lost_at)
    return (*before, AttemptRecord(count + 1, now(), after_epoch=epoch))


def seen_on(attempts: Attempts, node: str) -> Attempts:
    """Returns the attempts with the present one's node added to those where it ran."""
    if not attempts or attempts[-1].nodes[-1:] == (node,):
        return attempts
    last = attempts[-1]
    return (*attempts[:-1], replace(last, nodes=(*last.nodes, node)))


def ended(
    attempts: Attempts, reason: AttemptReason, epoch: int, detail: str = "", at: str | None = None
) -> Attempts:
    """Returns the attempts with the present one ended, if there is one.

    Args:
        attempts: Those so far.
        reason: Why it ended.
        epoch: Epochs that are trained and recorded.
        detail: The same in a line.
        at: When; None for now.
    """
    if not attempts or attempts[-1].reason:
        return attempts
    last = replace(
        attempts[-1],
        reason=reason,
        epoch=epoch,
        detail=detail[:_MOST_DETAIL],
        end=now() if at is None else at,
    )
    return (*attempts[:-1], last)


def reason_of_end(state: TrialState, reason: str) -> AttemptReason:
    """Returns why a trial's last attempt ended, from how the trial did."""
    if state == "done":
        return "done"
    if reason.startswith("diverged"):
        return "diverged"
    return "pruned" if state == "pruned" else "bad configuration"


def to_text(attempts: Attempts) -> str:
    """Returns attempts as the ledger keeps them; what is empty is left out."""
    rows = [{name: value for name, value in asdict(one).items() if value} for one in attempts]
    return json.dumps(rows, separators=(",", ":"))


def from_text(text: str) -> Attempts:
    """Returns what `to_text` wrote."""
    return tuple(
        AttemptRecord(**(row | {"nodes": tuple(row.get("nodes", ()))})) for row in json.loads(text)
    )


def losses(trials: Iterable[TrialRecord]) -> str:
    """Returns in a line how many attempts were lost to what; empty if none was."""
    counts = Counter(attempt.reason for trial in trials for attempt in trial.attempts)
    lost = {reason: counts[reason] for reason in _LOST if counts[reason]}
    listed = ", ".join(f"{count} {reason}" for reason, count in lost.items())
    return f"{sum(lost.values())} attempt(s) were lost: {listed}" if lost else ""
