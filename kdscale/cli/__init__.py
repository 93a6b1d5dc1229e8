"""The commands of `kdscale`. Each one reads its arguments, calls the library, and shows."""

from kdscale.cli import (  # noqa: F401  # they register their commands
    _compare,
    _status,
    _study,
    _submit,
    _tools,
    _track,
)
from kdscale.cli._app import app, main

__all__ = ["app", "main"]
