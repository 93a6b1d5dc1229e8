"""MLflow as a projection of the study: never its only copy, never in training's way."""

from kdscale.tracking._links import RunLinks, run_links
from kdscale.tracking._tracker import Tracker, make_tracker
from kdscale.tracking._ui import ui_command, ui_environment
from kdscale.tracking._uri import mlflow_environment, tracking_uri

__all__ = [
    "RunLinks",
    "Tracker",
    "make_tracker",
    "mlflow_environment",
    "run_links",
    "tracking_uri",
    "ui_command",
    "ui_environment",
]
