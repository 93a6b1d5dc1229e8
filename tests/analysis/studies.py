"""Small studies to test with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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
