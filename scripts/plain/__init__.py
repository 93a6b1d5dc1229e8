"""The methods in their straightforward forms: what the fast ones must equal, and are timed by."""

from plain import core, dense, features, heavy, logits, relations, views
from plain._form import Forms

FORMS: tuple[Forms, ...] = (
    *core.FORMS,
    *logits.FORMS,
    *views.FORMS,
    *features.FORMS,
    *relations.FORMS,
    *heavy.FORMS,
    *dense.FORMS,
)

__all__ = ["FORMS", "Forms"]
