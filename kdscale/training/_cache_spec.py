"""The teacher cache, as a study file spells it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from kdscale.training._spec_base import Spec, rule_error


def _bytes(value: Any) -> Any:
    """Returns the bytes that a text such as ``20GB`` names; anything else as it is."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(_SIZE, value.strip())
    if match is None:
        raise rule_error("must be a number of bytes, or a size", hint="for example 20GB or 500MiB")
    return int(float(match[1]) * _UNITS[match[2]])


_UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**n for n, prefix in enumerate("kMGT", start=1)},
    **{f"{prefix}iB": 1024**n for n, prefix in enumerate("KMGT", start=1)},
}
_SIZE = rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})"
_SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^{_SIZE}$"}]
}

ByteCount = Annotated[int, Field(ge=0), BeforeValidator(_bytes), WithJsonSchema(_SIZE_SCHEMA)]
"""Bytes, as a number or as a text such as ``20GB``."""


class TeacherCacheSpec(Spec):
    """The teacher cache: outputs kept on disk by (image, view) and shared by all runs."""

    enabled: bool = True
    """Whether the teacher's outputs are kept and read. Results are the same either way."""

    dtype: Literal["fp32", "fp16"] = "fp32"
    """fp32 keeps outputs as the teacher computes them, and results stay bitwise the same. fp16
    halves the space and rounds every output that students see, kept or not, to 11 significant
    bits (values beyond 65504 to 65504): results differ a little from those without a cache."""

    top_k: int | None = Field(None, ge=1)
    """Keep only the K largest logits, and what the others' softmax adds up to, which they share
    evenly; null keeps all. Students see these logits, kept or not, so results differ from those
    without it. Only for methods that read one softmax of the teacher's logits (kd), or none."""

    quota: ByteCount = 20_000_000_000
    """Most bytes that all caches in the folder take together, as a number or as ``20GB``: the
    longest unused is deleted first. A teacher whose outputs of one epoch do not fit stays live."""

    folder: Path | None = None
    """Folder of all caches, relative to the working directory; default: ``.cache/teachers`` in
    ``storage.folder``, so that later studies there share them."""

    @property
    def changes_results(self) -> bool:
        """Whether students see other numbers than without a cache."""
        return bool(self.what_students_see)

    @property
    def without_effect(self) -> bool | set[str]:
        """The fields that may change in a study without changing its results; True for all."""
        return {"quota", "folder"} if self.changes_results else True

    @property
    def what_students_see(self) -> str:
        """What is not as the teacher computes it; empty if all is."""
        if not self.enabled:
            return ""
        rounding = "outputs rounded to fp16" if self.dtype == "fp16" else ""
        largest = "" if self.top_k is None else f"only the {self.top_k} largest logits"
        return " and ".join(part for part in (largest, rounding) if part)
