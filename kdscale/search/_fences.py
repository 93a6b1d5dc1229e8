"""The numbers of a study's sweeps across ``--fresh``: none is ever given to two of them.

A worker of a deleted study may live on where nobody can reach it, such as on a node that is cut
off. So the fence outlives the deletion, and the first sweep of the new study has a higher number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from kdscale.files import Remote, patiently
from kdscale.search._cohort_lease import Fence, fence_number
from kdscale.search._remote import reaching, study_remote
from kdscale.search._remote_lease import FENCE_NAME, RemoteFence
from kdscale.search._study import Study

T = TypeVar("T")

_PATIENCE_SECONDS = 30.0


def known_fence(study: Study) -> int:
    """Returns the highest number that a fence of the study has had; 0 if there is none.

    Raises:
        UserError: If the study's remote folder cannot be reached.
    """
    file, remote = study.folder / FENCE_NAME, study_remote(study)
    here = fence_number(file.read_text()) if file.exists() else 0
    if remote is None:
        return here
    there = _reached(remote, partial(remote.get, FENCE_NAME))
    return max(here, fence_number(there.decode()) if there is not None else 0)


def stop_workers(study: Study, number: int, on_note: Callable[[str], None]) -> None:
    """Puts all workers of a study behind its fence, and returns when none trains any more.

    Args:
        study: The study.
        number: What the fence is to say at least.
        on_note: Called with what is waited for.

    Raises:
        UserError: If the study's remote folder cannot be reached.
    """
    known, remote = known_fence(study), study_remote(study)
    if not known:  # no sweep has come so far as to ask for workers
        return
    number, folder = max(number, known + 1), study.folder.absolute()
    if remote is None:
        Fence(folder, number).reap(on_note)
        return
    _reached(remote, partial(remote.put, f"{number}\n".encode(), FENCE_NAME))
    elsewhere = RemoteFence(remote)
    try:
        Fence(folder, number, elsewhere).reap(on_note)
    finally:
        elsewhere.close()


def _reached(remote: Remote, work: Callable[[], T]) -> T:
    """Returns what a piece of work at the remote folder returns, tried for a while."""
    found: list[T] = []
    with reaching(remote):
        patiently(lambda: found.append(work()), _PATIENCE_SECONDS)
    return found[0]
