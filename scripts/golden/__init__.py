"""Golden values: how kdscale computes each kind of case of the authors' values."""

from golden import core, dense, features, heavy, logits, relations, views
from golden._entry import Entry, Inputs, Params

TABLE: tuple[Entry, ...] = (
    *core.ENTRIES,
    *logits.ENTRIES,
    *views.ENTRIES,
    *features.ENTRIES,
    *relations.ENTRIES,
    *heavy.ENTRIES,
    *dense.ENTRIES,
)

__all__ = ["TABLE", "Entry", "Inputs", "Params"]
