"""The Ray cluster that a command joins, or starts on this machine for its own time."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kdscale.errors import UserError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # CSV, JSON and TensorBoard files of each trial: the study and MLflow hold their content.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's own state, every few seconds: a sweep continues from the study.
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Ray's settings for a calm terminal and a driver that does not grow."""

_AUTOSCALER_PATIENCE_SECONDS = 10.0


@contextmanager
def joined_cluster() -> Iterator[list[dict[str, Any]]]:
    """Joins the cluster of RAY_ADDRESS, or starts Ray here; yields the resources of its nodes."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    mine = not ray.is_initialized()
    if mine:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if "RAY_ADDRESS" not in os.environ:
            # "local", because Ray would else join any cluster that it finds on this machine.
            options |= {"address": "local", "include_dashboard": False}
        try:
            ray.init(**options, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
        except ConnectionError as error:
            raise UserError(
                "RAY_ADDRESS: there must be a Ray cluster to join at "
                f"{os.environ.get('RAY_ADDRESS')}, but: {str(error).splitlines()[0]} "
                "(RAY_AUTH_MODE=token may be missing here: ray start asks for a token by default)"
            ) from error
    try:
        with _sigterm_as_ctrl_c():  # after ray.init, which takes SIGTERM for itself
            yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        if mine:
            ray.shutdown()


def may_grow() -> bool:
    """Returns whether the cluster that was joined may get more nodes."""
    from kdscale.search._places import has_autoscaler

    # A cluster that has just begun may have an autoscaler that has not; this machine has none.
    return has_autoscaler(_AUTOSCALER_PATIENCE_SECONDS if "RAY_ADDRESS" in os.environ else 0.0)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Makes SIGTERM, with which Ray jobs, Slurm and Kubernetes stop a sweep, a Ctrl-C.

    In a Ray job SIGINT is blocked, so it is let through first.
    """

    def interrupt(*_: object) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
