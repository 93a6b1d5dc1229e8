"""The files of a study's trials: how large they get."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from torch import nn

from kdscale.data import TaskData
from kdscale.errors import UserError
from kdscale.losses import Objective, PairShapes
from kdscale.models import Network
from kdscale.search._cache_plan import ends
from kdscale.search._study import Study
from kdscale.training import RecipeSpec


@dataclass(frozen=True)
class FilesPlan:
    """How large the files of a study's trials get.

    Attributes:
        trials: Trials, the undistilled ones included.
        checkpoint_bytes: Bytes of a checkpoint: student, the methods' own parameters, optimiser.
        student_bytes: Bytes of a trained student.
        quota_bytes: The study's quota; None for none.
        remote: Where they go as well; empty if nowhere.
    """

    trials: int
    checkpoint_bytes: int
    student_bytes: int
    quota_bytes: int | None = None
    remote: str = ""

    @property
    def bytes(self) -> int:
        """The most that all files take."""
        return self.trials * (self.checkpoint_bytes + self.student_bytes)


def files_plan(study: Study, data: TaskData, student: Network, teacher: Network) -> FilesPlan:
    """Returns how large the files of a study's trials get, at the ends of the search space."""
    recipe, labels = study.task.recipe, data.train.labels
    shapes = PairShapes(student.shapes, teacher.shapes, recipe.batch_size, labels)
    checkpoint = _saved_bytes(student, recipe)
    for values in ends(study):
        with suppress(UserError):  # refused: the plan says so elsewhere
            terms = study.resolve(values).terms
            objective = Objective(1.0, 0.0, terms, shapes, 0)
            size = _saved_bytes(student, recipe) + _saved_bytes(objective, recipe)
            checkpoint = max(checkpoint, size)
    seeds = len(study.seed_list)
    return FilesPlan(
        trials=study.trials + (seeds if study.undistilled else 0),
        checkpoint_bytes=checkpoint,
        student_bytes=_state_bytes(student),
        quota_bytes=study.storage.quota,
        remote=study.storage.remote or "",
    )


def _saved_bytes(module: nn.Module, recipe: RecipeSpec) -> int:
    """Returns the bytes of a module's state with what the optimiser remembers of it."""
    learns = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    remembered = 2 if recipe.optimizer == "adamw" else int(recipe.momentum > 0)
    return _state_bytes(module) + remembered * learns


def _state_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())
