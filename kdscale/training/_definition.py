"""What defines a trial's training, as a digest: a checkpoint is resumed by the same one alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from kdscale.losses import TermConfig
from kdscale.training._spec import RecipeSpec

_BUT_ROUNDING = {"executor", "compile", "channels_last"}
"""Fields of a recipe that change how a step is computed, and nothing but rounding in what it is."""


def definition_of(
    ce_weight: float, ce_start_epoch: int, terms: Iterable[TermConfig], recipe: RecipeSpec
) -> str:
    """Returns the digest of an objective and a recipe, which equal numbers of any type share.

    Defaults of the recipe are left out: a later version may have more fields.

    Args:
        ce_weight: Weight of the cross-entropy with the labels.
        ce_start_epoch: The first epoch with the cross-entropy.
        terms: The methods with their weights.
        recipe: The recipe.
    """
    kept = recipe.model_dump(exclude_defaults=True, exclude=_BUT_ROUNDING)
    whole = [ce_weight, ce_start_epoch, [asdict(term) for term in terms], kept]
    return hashlib.sha256(json.dumps(_plain(whole), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | bool):
        return value
    return float(value).hex()
