"""The methods: pure functions of tensors, and the objective that weighs them.

Conventions: teacher first in every KL; T² inside the value; mean over the batch. Each docstring
says what else is in the number and where paper and official code disagree.
"""

from kdscale.losses._batch import Batch
from kdscale.losses._dkd import DKD, dkd
from kdscale.losses._gather import gather_batch
from kdscale.losses._kd import KD, kd
from kdscale.losses._ldrld import LDRLD, ldrld, ldrld_local, ldrld_rntk
from kdscale.losses._method import Hyperparameter, Method, Needs, PairShapes, Reads, Term
from kdscale.losses._objective import Objective, TermConfig, common_hyperparameters
from kdscale.losses._rsd import AAD, RSD, rsd
from kdscale.losses._schedule import Schedule, ScheduleKind

METHODS: dict[str, Method] = {
    "kd": KD,
    "dkd": DKD,
    "ldrld": LDRLD,
    "rsd": RSD,
}
"""Every method by the name that study files use."""

__all__ = [
    "AAD",
    "METHODS",
    "Batch",
    "Hyperparameter",
    "Method",
    "Needs",
    "Objective",
    "PairShapes",
    "Reads",
    "Schedule",
    "ScheduleKind",
    "Term",
    "TermConfig",
    "common_hyperparameters",
    "dkd",
    "gather_batch",
    "kd",
    "ldrld",
    "ldrld_local",
    "ldrld_rntk",
    "rsd",
]
