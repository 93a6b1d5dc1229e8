"""What a row of a golden table is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """How one kind of case is computed; it must have these inputs and exactly these parameters.

    Attributes:
        golden: The method's name in the golden file.
        variant: The first word of the case's variant; empty for any.
        inputs: Names of the case's inputs that ``function`` reads.
        params: Names of the case's parameters, all of them.
        function: Computes the case's value.
        method: The method's name in `kdscale.losses.METHODS`.
        extras: Computes what the case lists under ``values``, by name; None if it lists nothing
            that kdscale computes.
        relative: Tolerance of the value.
    """

    golden: str
    variant: str
    inputs: str
    params: str
    function: Callable[[Inputs, Params], Tensor]
    method: str
    extras: Callable[[Inputs, Params], Mapping[str, Tensor]] | None = None
    relative: float = 1e-9
