"""MLflow as a projection of the study: never its only copy, never in training's way."""

from kdscale.tracking._links import RunLinks, run_links
from kdscale.tracking._summary import Student, Summary
from kdscale.tracking._together import shared_page, track_together
from kdscale.tracking._tracker import Tracker, make_tracker, register_student
from kdscale.tracking._ui import ui_command, ui_environment, ui_page
from kdscale.tracking._uri import (
    is_database,
    is_own_database,
    mlflow_environment,
    own_database,
    tracking_uri,
)

__all__ = [
    "RunLinks",
    "Student",
    "Summary",
    "Tracker",
    "is_database",
    "is_own_database",
    "make_tracker",
    "mlflow_environment",
    "own_database",
    "register_student",
    "run_links",
    "shared_page",
    "track_together",
    "tracking_uri",
    "ui_command",
    "ui_environment",
    "ui_page",
]
