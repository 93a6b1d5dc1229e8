"""What every part of a study file is: an immutable model that knows all of its keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


def rule_error(rule: str, *, hint: str = "", at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """Returns the error that a validator raises for a broken rule.

    Args:
        rule: The rule, stated positively: "must be at least 1".
        hint: How to mend it.
        at: Where the offending value lies, below the field that is validated.
    """
    context: dict[str, Any] = {"rule": rule, "hint": hint, "at": at}
    return PydanticCustomError("rule", "{rule}", context)


class Spec(BaseModel):
    """Base of everything that a study file spells: immutable, and no key is left unread."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )
