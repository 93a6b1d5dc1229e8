"""One trial, one result: whatever its company, its teacher's form, and its restarts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kdscale.losses import TermConfig
from kdscale.models import Network
from kdscale.training import CachedTeacher, Group, Member, train_cohort

from .tasks import (
    EPOCHS,
    TERMS,
    Outcome,
    assert_same,
    behind,
    cohort_of,
    data,
    files_of,
    follow,
    members,
    must_not_load,
    teacher,
)

TRIALS = {
    "rsd": TERMS["rsd"],
    "hint": (TermConfig("fitnet", "fitnet", 0.1),),
    **{name: TERMS[name] for name in ("kd", "dkd", "shallow", "deep", "two", "undistilled")},
    **{f"kd {w}": (TermConfig("kd", "kd", w),) for w in (0.5, 2.0, 4.0, 8.0)},
    **{f"deep {w}": (TermConfig("ldrld", "ldrld", w, {"depth": 9}),) for w in (0.5, 2.0, 4.0)},
    "crd": TERMS["crd"],
}
WATCHED = ("rsd", "crd")
"""The first and the last: all between them are pruned, one after an epoch, one after two, ..."""

ENDS = {name: 1 + number % 2 for number, name in enumerate(TRIALS)} | dict.fromkeys(WATCHED, EPOCHS)
"""The last epoch of each."""

Source = Network | CachedTeacher


@dataclass
class Trained:
    outcomes: dict[str, Outcome]
    files: dict[str, dict[str, Any]]


def company(folder: Path, size: int) -> tuple[Member, ...]:
    """Returns so many trials: the last one is watched, and the first too if there are more."""
    named = members(folder, *[*TRIALS][-size:] if size < len(TRIALS) else TRIALS)
    return tuple(replace(member, terms=TRIALS[member.name]) for member in named)


def trained(trials: Sequence[Member], source: Source) -> Trained:
    """Trains a cohort epoch by epoch, each without those that were pruned after the last."""
    outcomes: dict[str, Outcome] = {}
    for until in range(1, EPOCHS + 1):
        going = tuple(member for member in trials if ENDS[member.name] >= until)
        outcomes |= follow(train_cohort(cohort_of(going, until=until), data(), source, Group()))
    return Trained(outcomes, {member.name: files_of(member) for member in trials})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains each watched trial by itself, undisturbed, under the live teacher."""
    found = Trained({}, {})
    for name in WATCHED:
        [member] = members(tmp_path_factory.mktemp("alone"), name)
        one = trained([replace(member, terms=TRIALS[name])], teacher())
        found.outcomes |= one.outcomes
        found.files |= one.files
    return found


@pytest.fixture(scope="module", params=[1, 2, 16])
def cold(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Trained, Path]:
    """Trains a cohort of a size with an empty cache: gives what came out, and the filled cache."""
    folder = tmp_path_factory.mktemp("cold")
    return (
        request.param,
        trained(company(folder, request.param), behind(folder / "cache")),
        folder / "cache",
    )


def assert_as_alone(got: Trained, alone: Trained, size: int) -> None:
    names = [name for name in WATCHED if name in got.outcomes]
    assert names == [*WATCHED] if size == len(TRIALS) else [WATCHED[-1]]
    for name in names:
        assert got.outcomes[name] == alone.outcomes[name]
        assert got.outcomes[name].status == "done"
        assert_same(got.files[name], alone.files[name])


def without_half(cache: Path, folder: Path) -> CachedTeacher:
    """Returns the teacher behind a copy of a cache, in which about half is absent."""
    blocks = sorted(cache.glob("*/*.block"))
    shutil.copytree(cache, folder, ignore=lambda *_: [block.name for block in blocks[::2]])
    if len(blocks) == 1:
        content = blocks[0].read_bytes()
        gone = len(content.rstrip(b"\0")) // 2
        (folder / blocks[0].relative_to(cache)).write_bytes(bytes(gone) + content[gone:])
    return behind(folder)


def test_a_cold_cache(cold: tuple[int, Trained, Path], alone: Trained) -> None:
    size, got, _ = cold
    assert_as_alone(got, alone, size)
    ends = Counter(outcome.status for outcome in got.outcomes.values())
    assert (
        ends == {1: {"done": 1}, 2: {"done": 1, "running": 1}, 16: {"done": 2, "running": 14}}[size]
    )


@pytest.mark.parametrize("kind", ["live", "warm", "half evicted"])
def test_a_live_teacher_and_a_filled_cache(
    kind: str, cold: tuple[int, Trained, Path], alone: Trained, tmp_path: Path
) -> None:
    size, before, cache = cold
    source: Source = teacher()
    if kind == "warm":
        source = behind(cache, must_not_load)
    elif kind == "half evicted":
        source = without_half(cache, tmp_path / "cache")
    got = trained(company(tmp_path, size), source)
    assert_as_alone(got, alone, size)
    assert got.outcomes == before.outcomes
    assert_same(got.files, before.files)


@pytest.mark.parametrize(
    "kinds", [("live", "half evicted"), ("half evicted", "live")], ids="-".join
)
def test_resumed_in_another_order_with_another_teacher(
    kinds: tuple[str, str], cold: tuple[int, Trained, Path], alone: Trained, tmp_path: Path
) -> None:
    size, before, cache = cold
    evicted = without_half(cache, tmp_path / "cache")
    first, second = (teacher() if kind == "live" else evicted for kind in kinds)
    progress = train_cohort(cohort_of(company(tmp_path, size)), data(), first, Group())
    next(progress), next(progress)
    progress.close()
    got = trained(company(tmp_path, size)[::-1], second)
    assert_as_alone(got, alone, size)
    assert got.outcomes == before.outcomes
    assert_same({name: got.files[name] for name in before.files}, before.files)
