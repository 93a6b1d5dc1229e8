"""What a study has found, on its pages in MLflow: description, best trials, and a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from mlflow import MlflowClient
    from torch import nn

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a description, in Markdown."""

BEST = "kdscale.best"
"""Tag of the best configuration's runs: ``model`` of the one whose student is logged, and ``yes``
of the others."""

_STAR = " ★"


@dataclass(frozen=True)
class Student:
    """A trained student to log as a model.

    Attributes:
        trial: Name of its trial.
        file: Its weights.
        load: Returns the network in eval mode on the CPU, and two or more normalised images of the
            task, ``[B, 3, H, W]`` float32.
    """

    trial: str
    file: Path
    load: Callable[[], tuple[nn.Module, torch.Tensor]]


@dataclass(frozen=True)
class Summary:
    """What a study has found so far.

    Attributes:
        text: The report's sentences, in Markdown.
        best: Name of the best configuration, such as ``c007``; empty without one.
        student: Its best student by validation; None where there are no weights.
        missing: Why there is no student; empty if there is one.
    """

    text: str
    best: str = ""
    student: Student | None = None
    missing: str = ""


def flag_best(client: MlflowClient, runs: Iterable[Any], summary: Summary) -> str:
    """Marks the runs of the best configuration, and no others; returns the student's run.

    A star in the name says it wherever MLflow shows runs: its tables show no tags by themselves.

    Args:
        client: MLflow.
        runs: All runs of the study.
        summary: What the study has found.
    """
    chosen = summary.student.trial if summary.student else ""
    found = ""
    for run in runs:
        number, tags = run.info.run_id, run.data.tags
        trial = tags.get("kdscale.trial", "")
        is_best = bool(summary.best) and tags.get("kdscale.configuration") == summary.best
        wanted = ("model" if trial == chosen else "yes") if is_best else ""
        if trial == chosen:
            found = str(number)
        if tags.get(BEST, "") == wanted:
            continue
        name = run.info.run_name.removesuffix(_STAR)
        client.update_run(number, name=name + _STAR if wanted else name)
        if wanted:
            client.set_tag(number, BEST, wanted)
        else:
            client.delete_tag(number, BEST)
    return found


def model_text(summary: Summary, run: str) -> str:
    """Returns how to load the model; empty without a student.

    Args:
        summary: What the study has found.
        run: Id of the student's run.
    """
    if summary.student is None:
        return ""
    return (
        f"**Model.** The student of {summary.student.trial}, the best seed of {summary.best} by "
        f'validation: `mlflow.pytorch.load_model("runs:/{run}/student")` takes normalised '
        "images `[B, 3, H, W]` and returns logits."
    )
