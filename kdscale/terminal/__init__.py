"""What people see in a terminal. Renders; decides nothing."""

from kdscale.terminal._audit import audit_view
from kdscale.terminal._doctor import Finding, doctor_view, examine
from kdscale.terminal._filling import show_filling
from kdscale.terminal._methods import method_view, methods_table, not_public_table
from kdscale.terminal._plan import plan_view
from kdscale.terminal._power import power_view
from kdscale.terminal._progress import SweepView
from kdscale.terminal._status import Status, status_of, status_view
from kdscale.terminal._tasks import TasksStatus, tasks_view

__all__ = [
    "Finding",
    "Status",
    "SweepView",
    "TasksStatus",
    "audit_view",
    "doctor_view",
    "examine",
    "method_view",
    "methods_table",
    "not_public_table",
    "plan_view",
    "power_view",
    "show_filling",
    "status_of",
    "status_view",
    "tasks_view",
]
