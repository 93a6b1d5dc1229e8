"""A chaos run: the study left alone, the study disturbed, and what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from testbed_lib import Testbed
from testbed_lib.hosts import HERE
from testbed_lib.postgres import PASSWORD, Postgres, postgres

from chaos_lib.compare import differences, tracking_differences
from chaos_lib.kinds import KINDS
from chaos_lib.scene import MLFLOW_PORT, Driver, Scene
from chaos_lib.study import write_study
from chaos_lib.watch import Repeated, Watch, repeated_after

_SCRIPTS = Path(__file__).resolve().parents[1]
_LOOK_SECONDS = 0.2
_EPOCHS_BETWEEN = (2, 10)
_LONGEST_DOWN_SECONDS = 4
_HANG_SECONDS = 240
_STARTS_IN_VAIN = 5


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        seed: Of what is killed and when.
        kills: How many.
        kinds: Of these.
        nodes: Of the cluster.
        workers: Of each cohort.
        folder: For all files.
    """

    seed: int
    kills: int
    kinds: Sequence[str]
    nodes: int
    workers: int
    folder: Path


@dataclass
class Kill:
    """One kill.

    Attributes:
        kind: Its kind.
        what: What exactly.
        at: When, in seconds of the monotonic clock.
        recovered_seconds: How long until the next checkpoint was written, None if none was.
        repeated: What was trained again because of it.
    """

    kind: str
    what: str
    at: float
    recovered_seconds: float | None = None
    repeated: Repeated = field(default_factory=Repeated)


@dataclass(frozen=True)
class Verdict:
    """What came of it.

    Attributes:
        kills: In order.
        problems: What is not as it should be, a line each.
        starts: How often the sweep was started.
        trials: How many there are.
    """

    kills: list[Kill]
    problems: list[str]
    starts: int
    trials: int


def run(plan: Plan, say: Callable[[str], None]) -> Verdict:
    """Returns the verdict; the testbed is taken down in the end, whatever comes.

    Args:
        plan: What to do.
        say: Told each step, in one line.
    """
    alone = write_study(
        plan.folder / "alone", kills=plan.kills, workers=plan.workers, tracking={"mlflow": False}
    )
    testbed = Testbed(say=say)
    _leave_alone(alone, say)
    testbed.down()
    testbed.up(plan.nodes, cpus=1)
    with ExitStack() as stack:
        stack.callback(testbed.down)
        database = stack.enter_context(postgres(HERE)) if "database" in plan.kinds else None
        return _disturbed(plan, testbed, database, alone, say)


def _disturbed(
    plan: Plan, testbed: Testbed, database: Postgres | None, alone: Path, say: Callable[[str], None]
) -> Verdict:
    with_mlflow = "mlflow" in plan.kinds
    tracking: dict[str, Any] = {"mlflow": False}
    if with_mlflow:
        tracking = {"mlflow": True, "uri": f"http://127.0.0.1:{MLFLOW_PORT}"}
    path = write_study(
        plan.folder / "disturbed",
        kills=plan.kills,
        workers=plan.workers,
        tracking=tracking,
        url=database.plain_url if database else None,
    )
    os.environ["PGPASSWORD"] = PASSWORD
    watch = Watch(path.parent / "chaos" / "trials", plan.folder / "copies")
    driver = Driver(testbed, path)
    scene = Scene(testbed, path, driver, watch, Random(plan.seed), with_mlflow, database)
    try:
        kills, problems = _disturb(scene, plan, say)
    finally:
        driver.stop()
        watch.close()
    _account(kills, watch)
    problems += differences(alone, path)
    if with_mlflow:
        problems += tracking_differences(path, scene.mlflow_folder)
    problems += _too_much(kills)
    return Verdict(kills, problems, driver.starts, len({one.trial for one in watch.written}))


def _leave_alone(path: Path, say: Callable[[str], None]) -> None:
    say("the study left alone: starts, without Ray")
    started = time.monotonic()
    words = [sys.executable, "-m", "chaos_lib.alone", str(path)]
    python_path = f"{_SCRIPTS}{os.pathsep}{_SCRIPTS.parent}"
    environment = os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}
    subprocess.run(words, check=True, env=environment)
    say(f"the study left alone: {time.monotonic() - started:.0f} s")


def _disturb(scene: Scene, plan: Plan, say: Callable[[str], None]) -> tuple[list[Kill], list[str]]:
    """Kills, mends and starts the sweep again until it is complete."""
    kills: list[Kill] = []
    kinds = _kinds(plan, scene.random)
    due = scene.random.randint(0, _EPOCHS_BETWEEN[1])
    written, moved, starts_in_vain = 0, time.monotonic(), 0
    scene.mend()
    while True:
        now, count = time.monotonic(), len(scene.watch.written)
        if count > written:
            written, moved, starts_in_vain = count, now, 0
        if not scene.driver.runs:
            if scene.driver.code == 0:
                break
            if starts_in_vain == _STARTS_IN_VAIN:
                return kills, [f"{_STARTS_IN_VAIN} sweeps came to nothing: {_last_words(scene)}"]
            starts_in_vain += 1
            scene.mend()
            scene.driver.start()
            say(f"sweep: start {scene.driver.starts}")
        elif len(kills) < plan.kills and count >= due:
            # Not only at the moment after a checkpoint.
            time.sleep(scene.random.uniform(0, 8 if not count else 2))
            kind = kinds[0]
            at = time.monotonic()
            what = KINDS[kind](scene)
            if not what:  # nothing there to kill yet: another kind's turn
                kinds.append(kinds.pop(0))
            else:
                kinds.pop(0)
                kills.append(Kill(kind, what, at))
                say(f"kill {len(kills)} of {plan.kills}, {kind}: {what}")
                due = len(scene.watch.written) + scene.random.randint(*_EPOCHS_BETWEEN)
                time.sleep(scene.random.uniform(0, _LONGEST_DOWN_SECONDS))
                scene.mend()
                moved = time.monotonic()
        elif now - moved > _HANG_SECONDS:
            return kills, [
                f"no checkpoint for {_HANG_SECONDS} s after {kills[-1].kind if kills else 'start'}"
                f": {_last_words(scene)}"
            ]
        time.sleep(_LOOK_SECONDS)
    if len(kills) < plan.kills:
        return kills, [f"the study was complete after {len(kills)} of {plan.kills} kills"]
    return kills, []


def _kinds(plan: Plan, random: Random) -> list[str]:
    """Returns the kind of each kill: every kind as often as any other, in a random order."""
    found: list[str] = []
    while len(found) < plan.kills:
        found += random.sample(list(plan.kinds), len(plan.kinds))
    return found[: plan.kills]


def _last_words(scene: Scene) -> str:
    lines = scene.driver.log.read_text(errors="replace").splitlines()
    return " | ".join(line.strip() for line in lines[-6:])


def _account(kills: list[Kill], watch: Watch) -> None:
    times = [kill.at for kill in kills]
    for kill, repeated in zip(kills, repeated_after(watch.written, times), strict=True):
        later = [one.at for one in watch.written if one.at > kill.at]
        kill.recovered_seconds = later[0] - kill.at if later else None
        kill.repeated = repeated


def _too_much(kills: Sequence[Kill]) -> list[str]:
    problems = []
    for number, kill in enumerate(kills, start=1):
        if kill.repeated.most > 1:
            problems.append(
                f"kill {number}, {kill.kind}: {kill.repeated.most} epochs of one trial were "
                "trained again, and should be one at most"
            )
        if not kill.repeated.same:
            problems.append(f"kill {number}, {kill.kind}: an epoch came out otherwise than before")
    return problems
