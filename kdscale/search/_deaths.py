"""Why workers died, from what Ray tells of them: their own fault, or their machine's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kdscale.records import AttemptReason
from kdscale.search._attempts import Loss
from kdscale.training import out_of_memory

_NODE_DIED = re.compile(
    r"node (?:has )?died|node (?:was|is) (?:dead|unreachable|terminated)|node failure|"
    r"raylet (?:has )?died|node.{0,40}marked dead",
    re.IGNORECASE,
)
"""What Ray says of an actor whose node is gone, where it does not say it by the error's type."""

_OTHER_LOST = re.compile(
    r"connection (?:was )?(?:closed|reset|refused|aborted)|broken pipe|timed? ?out waiting|"
    r"remote process exited|network error|heartbeat",
    re.IGNORECASE,
)
"""What gloo and NCCL say when another worker does not answer any more."""

_FIRST: tuple[AttemptReason, ...] = ("preempted", "node lost", "out of memory", "worker crash")
"""Of several workers' reasons the one that explains the others comes first."""


class LaneEndedError(RuntimeError):
    """A lane's workers are gone; the message says why."""


def cause_of(error: BaseException) -> BaseException:
    """Returns what our code has raised, out of what Ray Train wraps it in."""
    inner = getattr(error, "_base_exc", None)
    return inner if isinstance(inner, BaseException) else error


def silent(error: BaseException) -> bool:
    """Returns whether all that is known of a worker's end is that it or another does not answer."""
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    if isinstance(error, WorkerHealthCheckFailedError):
        return silent(error.health_check_failure)
    if isinstance(error, ConnectionError | RayActorError):
        return True
    return isinstance(error, RuntimeError) and _OTHER_LOST.search(str(error)) is not None


def reason_of(error: BaseException | None) -> AttemptReason:
    """Returns why a worker ended with an error of Ray or of its own; None tells nothing."""
    from ray.exceptions import (
        ActorUnavailableError,
        LocalRayletDiedError,
        NodeDiedError,
        OutOfMemoryError,
        RayActorError,
    )
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    from kdscale.search._scheduler import LaneGoneError

    if isinstance(error, WorkerHealthCheckFailedError):
        return reason_of(error.health_check_failure)
    if isinstance(error, LaneGoneError):
        return reason_of(error.cause)
    if isinstance(error, RayActorError) and error.preempted:
        return "preempted"
    if isinstance(getattr(error, "cause", error), LaneEndedError):
        return "node lost"  # had they had the cohort, they would have told why
    if isinstance(error, NodeDiedError | LocalRayletDiedError | ActorUnavailableError):
        # An actor that does not answer may live on: it is treated as one whose node is cut off.
        return "node lost"
    if error is not None and (isinstance(error, OutOfMemoryError) or out_of_memory(error)):
        return "out of memory"
    if isinstance(error, RayActorError) and _NODE_DIED.search(str(error)):
        return "node lost"
    return "worker crash"


def error_in(pickled: str | None, text: str | None) -> BaseException | None:
    """Returns the error that Ray Tune has written of a worker, if it has.

    Args:
        pickled: Path of the file with the error itself.
        text: Path of the file with its text, for errors that cannot be read back.
    """
    from ray import cloudpickle

    with suppress(Exception):  # whatever is wrong with it, there is the text
        error = cloudpickle.loads(Path(pickled or "").read_bytes())
        if isinstance(error, BaseException):
            return error
    with suppress(OSError):
        return RuntimeError(Path(text or "").read_text())
    return None


def worst_reason(errors: Iterable[BaseException]) -> AttemptReason:
    """Returns why a cohort of several workers was lost: when a node goes, the others crash too."""
    found = {reason_of(error) for error in errors}
    return next((reason for reason in _FIRST if reason in found), "worker crash")


def loss_of(error: BaseException | None) -> Loss:
    """Returns how a worker was lost that died without a word."""
    reason = reason_of(error)
    said = {
        "preempted": "the worker's node was preempted",
        "node lost": "the worker's node was lost",
        "out of memory": "the worker died, as memory ran out",
    }
    return Loss(reason, said.get(reason, "the worker died"))
