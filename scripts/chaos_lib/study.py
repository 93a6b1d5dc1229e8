"""The study of a chaos run: deterministic, on the CPU, long enough for the kills that are asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from kdscale.search import Study

_GENERATION = 4
_EPOCHS_A_GENERATION = 4 * 4 + 2 * 4 + 1 * 4  # of four trials two go on after epoch 4, one after 8
_EPOCHS_A_KILL = 24


def write_study(
    folder: Path, *, kills: int, workers: int, tracking: dict[str, Any], url: str | None = None
) -> Path:
    """Writes a study file whose study lies beside it, and returns its path.

    It has all that could go wrong: a teacher that is trained first and cached, a search that
    learns from earlier trials, rungs, and an undistilled control.

    Args:
        folder: Where to.
        kills: How many it should last for.
        workers: Of each cohort.
        tracking: Its MLflow section.
        url: Of the database that holds it, without the password; None for SQLite beside it.
    """
    generations = max(1, math.ceil(kills * _EPOCHS_A_KILL / _EPOCHS_A_GENERATION))
    network: dict[str, Any] = {"model": "resnet8", "args": {"width": 4}}
    study = Study.model_validate(
        {
            "name": "chaos",
            "task": {
                "data": {"name": "icons100", "train_images": 100},
                "teacher": network | {"epochs": 1, "inference": "folded"},
                "student": network,
                "recipe": {"lr": 0.05, "batch_size": 20},
            },
            "objective": {"methods": [{"method": "ldrld", "beta": 1, "temperature": 2}]},
            "parameters": {"alpha": {"min": 2, "max": 14}, "depth": {"values": [3, 5]}},
            "search": {
                "method": "tpe",
                "generation": _GENERATION,
                "baseline": {"alpha": 9, "depth": 3},
            },
            "rungs": {"eta": 2, "first": 4},
            "budget": {"trials": _GENERATION * generations, "epochs": 12},
            "resources": {
                "cohort": 2,
                "workers": workers,
                "placement": "spread" if workers > 1 else "pack",
            },
            "storage": {"folder": str(folder), "url": url},
            "tracking": tracking,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "chaos.yaml"
    path.write_text(study.to_yaml())
    return path
