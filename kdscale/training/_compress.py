"""What students see of a teacher whose cache rounds or compresses: the same, kept or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from kdscale.data import Part
from kdscale.outputs import Outputs
from kdscale.training._cache_spec import TeacherCacheSpec
from kdscale.training._teach_parts import assembled, class_type, parts_of

_VALUES, _CLASSES, _REST = "top values", "top classes", "rest"


def compressed(parts: Mapping[str, Tensor], top_k: int | None) -> dict[str, Tensor]:
    """Returns the parts of outputs with the logits as they are kept.

    With ``top_k`` these are the largest K logits, their classes, and one value for each of the
    others, with which their softmax has the mass that it had: log-sum-exp - log(C - K).

    Args:
        parts: By name, logits ``[B, C]`` among them.
        top_k: K; null, or C and more, for all logits.
    """
    logits = parts["logits"]
    classes = logits.shape[1]
    if top_k is None or top_k >= classes:
        return dict(parts)
    values, numbers = logits.topk(top_k, dim=1)
    others = logits.float().scatter(1, numbers, -math.inf).logsumexp(1, keepdim=True)
    return {
        _VALUES: values,
        _CLASSES: numbers.to(class_type(classes)),
        _REST: (others - math.log(classes - top_k)).to(logits.dtype),
        **{name: part for name, part in parts.items() if name != "logits"},
    }


def restored(parts: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
    """Returns the parts of outputs from those that `compressed` has made."""
    if _VALUES not in parts:
        return dict(parts)
    logits = parts[_REST].repeat_interleave(classes, dim=1)
    logits.scatter_(1, parts[_CLASSES].long(), parts[_VALUES])
    kept = (_VALUES, _CLASSES, _REST)
    return {"logits": logits, **{name: part for name, part in parts.items() if name not in kept}}


def seen(outputs: Outputs, spec: TeacherCacheSpec) -> Outputs:
    """Returns live outputs as students see them, so that results do not depend on what is kept."""
    if not spec.changes_results:
        return outputs
    parts = {
        name: Part.of(name, part).rounded(part, spec.dtype)
        for name, part in compressed(parts_of(outputs), spec.top_k).items()
    }
    return replace(
        assembled(restored(parts, outputs.logits.shape[1]), {}),
        norms=outputs.norms,
        classifier=outputs.classifier,
        tail=outputs.tail,
    )
