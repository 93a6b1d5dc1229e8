"""From a study file to trials: configurations, cohorts, Ray Tune, and the durable record."""

from kdscale.search._attempts import losses
from kdscale.search._axes import COMPUTE
from kdscale.search._cache_plan import CachePlan
from kdscale.search._cohort_size import CohortSize, cohorts_of_a_generation
from kdscale.search._designs import designed_configuration
from kdscale.search._estimate_cost import Check, check
from kdscale.search._files_plan import FilesPlan
from kdscale.search._fill_cache import Filled, fill_cache
from kdscale.search._folder import STUDY_FILE, load_folder, make_folder
from kdscale.search._fresh import delete_study, what_fresh_deletes
from kdscale.search._heartbeat import CohortSeen, Heartbeat
from kdscale.search._lease import sweep_lock
from kdscale.search._ledger import Ledger, open_ledger
from kdscale.search._plan import cost, fewest_and_most, spared_epochs
from kdscale.search._remote import fetch_students
from kdscale.search._resources import room, worker_bundle
from kdscale.search._single import Single, single_trial, train_single, train_teacher
from kdscale.search._snapshot import ledger_snapshot, record_snapshot
from kdscale.search._storage import DATABASE, has_begun
from kdscale.search._study import Resolved, Study, load_study
from kdscale.search._sweep import Listener, Outcome, sweep, write_study_file
from kdscale.search._versions import versions
from kdscale.search._yaml import dump_yaml, read_yaml

__all__ = [
    "COMPUTE",
    "DATABASE",
    "STUDY_FILE",
    "CachePlan",
    "Check",
    "CohortSeen",
    "CohortSize",
    "FilesPlan",
    "Filled",
    "Heartbeat",
    "Ledger",
    "Listener",
    "Outcome",
    "Resolved",
    "Single",
    "Study",
    "check",
    "cohorts_of_a_generation",
    "cost",
    "delete_study",
    "designed_configuration",
    "dump_yaml",
    "fetch_students",
    "fewest_and_most",
    "fill_cache",
    "has_begun",
    "ledger_snapshot",
    "load_folder",
    "load_study",
    "losses",
    "make_folder",
    "open_ledger",
    "read_yaml",
    "record_snapshot",
    "room",
    "single_trial",
    "spared_epochs",
    "sweep",
    "sweep_lock",
    "train_single",
    "train_teacher",
    "versions",
    "what_fresh_deletes",
    "worker_bundle",
    "write_study_file",
]
