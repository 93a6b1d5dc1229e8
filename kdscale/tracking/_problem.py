"""What went wrong with MLflow, as one line that says how to mend it."""

from __future__ import annotations

import re
import socket
import textwrap
from collections.abc import Iterator

from kdscale.urls import hide_passwords

_MESSAGE_LENGTH = 200
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_WHO = (
    "it wants to know who writes (set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
    "MLFLOW_TRACKING_TOKEN)"
)


def problem_of(error: BaseException, where: str) -> str:
    """Returns what an error means, without any password.

    Args:
        error: What MLflow raised.
        where: The tracking URI.
    """
    return hide_passwords(f"MLflow ({where}): {_meaning(error)}", where)


def _meaning(error: BaseException) -> str:
    from mlflow.exceptions import MlflowException, RestException

    status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
    if status == 401:
        return _WHO
    if status == 403:
        return f"its user may not write this experiment there ({_line(error)})"
    if status in (404, 405) and not isinstance(error, RestException):
        return f"there is no MLflow at this URL, which answers {status} (mend tracking.uri)"
    causes = list(_causes(error))
    if "not in a valid JSON format" in str(error):
        return "there is no MLflow at this URL, which answers something else (mend tracking.uri)"
    for cause in causes:
        if isinstance(cause, ConnectionError | socket.gaierror) and cause.strerror:
            return f"it does not answer ({cause.strerror})"
    if any("timeout" in type(cause).__name__.lower() for cause in causes):
        return "it does not answer (timed out)"
    return f"it did not take everything: {type(error).__name__}: {_line(error)}"


def _line(error: BaseException) -> str:
    # Addresses of objects would make two reports of one problem differ.
    return _ADDRESS.sub("…", textwrap.shorten(str(error), _MESSAGE_LENGTH, placeholder=" …"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what caused it, which libraries keep in several places."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        queue += [one.__cause__, one.__context__, getattr(one, "reason", None)]
        queue += [value for value in one.args if isinstance(value, BaseException)]
        queue = [entry for entry in queue if entry is None or isinstance(entry, BaseException)]
