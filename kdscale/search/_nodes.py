"""Whether machines of a cluster are alive: what Ray says, and whether they answer."""

from __future__ import annotations

import time
from collections.abc import Iterable

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_LOOK_SECONDS = 1.0


def alive_nodes() -> set[str]:
    """Returns the ids of the nodes that are alive, as far as Ray knows.

    Of a machine that went without a word it knows after some seconds; where a cable is cut, after a
    minute.
    """
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def one_goes(nodes: Iterable[str], patience_seconds: float) -> bool:
    """Returns whether one of some nodes is gone, or proves to be.

    Args:
        nodes: Their ids.
        patience_seconds: How long to wait for Ray to name a node that does not answer.
    """
    nodes = set(nodes)
    end = time.monotonic() + patience_seconds
    silent = nodes
    calls = {_call(node): node for node in nodes} if patience_seconds else {}
    while not (gone := bool(nodes - alive_nodes())) and silent and time.monotonic() < end:
        done, _ = ray.wait([*calls], num_returns=len(calls), timeout=_LOOK_SECONDS)
        silent = nodes - {calls[call] for call in done if _answers(call)}
    return gone


def _call(node: str) -> ray.ObjectRef[None]:
    """Asks a node for an answer."""

    def answer() -> None:  # inside, so that a worker gets it by value and need not import torch
        pass

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    asked: ray.ObjectRef[None] = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(
        answer
    ).remote()
    return asked


def _answers(call: ray.ObjectRef[None]) -> bool:
    """Returns whether a call that has ended was answered."""
    try:
        ray.get(call)
    except RayError:
        return False
    return True
