"""Small studies to test with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdscale.records import (
    FinalEvaluation,
    FinalScores,
    StudyRecord,
    TrialRecord,
    TrialState,
    Value,
)

EPOCHS = 4


def history(value: float, epochs: int = EPOCHS) -> tuple[Mapping[str, float], ...]:
    return tuple(
        {
            "epoch": epoch,
            "train_loss": 3.0 / epoch,
            "val_accuracy": value * epoch / epochs,
            "val_loss": 2.0 / epoch,
        }
        for epoch in range(1, epochs + 1)
    )


def trial(
    number: int,
    configuration: int | None,
    seed: int,
    value: float | None,
    state: TrialState = "done",
    parameters: Mapping[str, Value] | None = None,
    reason: str = "",
) -> TrialRecord:
    epochs = {"done": EPOCHS, "pruned": EPOCHS // 2}.get(state, 0)
    return TrialRecord(
        number=number,
        configuration=configuration,
        seed=seed,
        parameters={} if parameters is None else parameters,
        state=state,
        value=value,
        history=history(value or 0.0, epochs),
        group=f"g0-s{seed}",
        reason=reason,
        attempt=0 if state == "waiting" else 1,
        train_seconds=1.5 * epochs,
    )


def study(
    trials: Sequence[TrialRecord] = (), controls: Sequence[TrialRecord] = (), **changes: object
) -> StudyRecord:
    record = StudyRecord(
        name="tiny",
        folder=Path("studies/tiny"),
        metric="val_accuracy",
        goal="maximize",
        mode="last",
        epochs=EPOCHS,
        seeds=(0, 1),
        rungs=(2,),
        parameters=("alpha", "depth"),
        study_file="name: tiny\nseeds: 2\n",
        trials=tuple(trials),
        controls=tuple(controls),
        versions={"torch": "2.15.0"},
        commit="0123abc",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def usual() -> StudyRecord:
    """Two seeds, four configurations, one pruned, one failed, controls, a final evaluation."""
    points: list[dict[str, Value]] = [
        {"alpha": 0.01, "depth": 3},
        {"alpha": 0.5, "depth": 5},
        {"alpha": 2.0, "depth": 7},
        {"alpha": 9.0, "depth": 9},
    ]
    trials = [
        trial(0, 0, 0, 70.0, parameters=points[0]),
        trial(1, 1, 0, 72.0, parameters=points[1]),
        trial(2, 2, 0, 40.0, "pruned", points[2], "rung at epoch 2"),
        trial(3, 3, 0, None, "failed", points[3], "diverged at epoch 1 (ldrld is not finite)"),
        trial(4, 0, 1, 71.0, parameters=points[0]),
        trial(5, 1, 1, 72.5, parameters=points[1]),
        trial(6, 2, 1, 75.0, parameters=points[2]),
        trial(7, 3, 1, 41.0, "pruned", points[3], "rung at epoch 2"),
    ]
    controls = [trial(0, None, 0, 69.0), trial(1, None, 1, 70.0)]
    final = FinalEvaluation(
        configuration=1,
        scores=(
            FinalScores("teacher", {-1: 81.5}, 84_000),
            FinalScores("undistilled student", {0: 68.0, 1: 69.0}, 23_000),
            FinalScores("distilled student", {0: 71.0, 1: 71.9}, 23_000),
        ),
        reads=1,
        test_images=1500,
    )
    return study(trials, controls, final=final)


def simulate(
    configurations: int,
    seeds: int,
    *,
    design: str = "random",
    controls: bool = True,
    rungs: bool = False,
    failures: bool = False,
    epochs: int = 12,
    rng: int = 0,
) -> StudyRecord:
    """Returns a study of LDRLD's weights on a known surface: alpha matters, depth does not.

    Accuracy peaks at alpha = 9 and falls with the distance of log beta from 0; seeds move all
    configurations alike by 0.4 points, and each trial by 0.3.

    Args:
        configurations: Their number; for a one-at-a-time design along each hyperparameter.
        seeds: Their number.
        design: ``random`` or ``oat``.
        controls: Whether there are undistilled students.
        rungs: Whether the worse half of each seed stops at epoch 4.
        failures: Whether every 17th trial fails.
        epochs: Epochs of a full trial.
        rng: Seed of points and noise.
    """
    draw = np.random.default_rng(rng)
    points = _points(design, configurations, draw)
    shift = draw.normal(0.0, 0.4, seeds)
    trials: list[TrialRecord] = []
    for seed in range(seeds):
        values = [_surface(point) + shift[seed] + draw.normal(0.0, 0.3) for point in points]
        middle = float(np.median(values))
        for number, (point, value) in enumerate(zip(points, values, strict=True)):
            state: TrialState = "pruned" if rungs and value < middle else "done"
            if failures and len(trials) % 17 == 16:
                state = "failed"
            trials.append(_simulated(len(trials), number, seed, value, state, point, epochs, draw))
    undistilled = [
        _simulated(seed, None, seed, 68.0 + shift[seed], "done", {}, epochs, draw)
        for seed in range(seeds if controls else 0)
    ]
    return study(
        trials,
        undistilled,
        name=f"simulated-{design}-{configurations}x{seeds}",
        epochs=epochs,
        seeds=tuple(range(seeds)),
        rungs=(4,) if rungs else (),
        parameters=("alpha", "beta", "depth"),
    )


def _points(design: str, configurations: int, draw: np.random.Generator) -> list[dict[str, Value]]:
    if design == "random":
        return [
            {
                "alpha": float(draw.uniform(2, 14)),
                "beta": float(np.exp(draw.uniform(np.log(0.025), np.log(8.5)))),
                "depth": int(draw.choice([3, 5, 7, 9])),
            }
            for _ in range(configurations)
        ]
    baseline: dict[str, Value] = {"alpha": 9.0, "beta": 1.0, "depth": 7}
    along: dict[str, Sequence[Value]] = {
        "alpha": [float(value) for value in np.linspace(2, 14, configurations)],
        "beta": [float(value) for value in np.geomspace(0.025, 8.5, configurations)],
        "depth": [3, 5, 7, 9],
    }
    found = [baseline]
    for name, values in along.items():
        found += [baseline | {name: value} for value in values if value != baseline[name]]
    return found


def _surface(point: Mapping[str, Value]) -> float:
    alpha, beta = float(point["alpha"]), float(point["beta"])
    return 72.0 - 0.05 * (alpha - 9.0) ** 2 - 0.15 * float(np.log(beta)) ** 2


def _simulated(
    number: int,
    configuration: int | None,
    seed: int,
    value: float,
    state: TrialState,
    point: Mapping[str, Value],
    epochs: int,
    draw: np.random.Generator,
) -> TrialRecord:
    trained = {"done": epochs, "pruned": 4}.get(state, 2)
    rise = 1.0 - np.exp(-np.arange(1, trained + 1) / (epochs / 5.0))
    curve = value * rise / (1.0 - np.exp(-5.0)) + draw.normal(0.0, 0.3, trained)
    curve[-1] = value if state == "done" else curve[-1]
    rows = tuple(
        {"epoch": epoch, "train_loss": 3.0 / epoch, "val_accuracy": round(float(accuracy), 3)}
        for epoch, accuracy in enumerate(curve, start=1)
    )
    reason = {"pruned": "rung at epoch 4", "failed": "diverged at epoch 3 (ldrld)"}.get(state, "")
    return TrialRecord(
        number=number,
        configuration=configuration,
        seed=seed,
        parameters=point,
        state=state,
        value=None if state == "failed" else rows[-1]["val_accuracy"],
        history=rows,
        group="" if configuration is None else f"g0-s{seed}",
        reason=reason,
        attempt=1 + number % 11 // 10,
        train_seconds=5.0 * trained,
    )
