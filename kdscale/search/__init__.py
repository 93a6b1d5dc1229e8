"""From a study file to trials: the search space, its configurations and their order."""

from kdscale.search._designs import designed_configuration
from kdscale.search._study import Resolved, Study, load_study

__all__ = ["Resolved", "Study", "designed_configuration", "load_study"]
