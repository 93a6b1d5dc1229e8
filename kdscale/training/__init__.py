"""The loop that trains students under a teacher, and the models of what it trains."""

from kdscale.training._backup import Backup
from kdscale.training._cache_spec import ByteCount, TeacherCacheSpec
from kdscale.training._checkpoint import delete_drafts
from kdscale.training._cohort import Cohort, Progress, Status, train_cohort
from kdscale.training._evaluate import Score, evaluate
from kdscale.training._form import FormChoice, form_path, measured_form, read_form, settled
from kdscale.training._group import Group
from kdscale.training._measure import Measured, measure_cohorts
from kdscale.training._memory import (
    give_back_memory,
    keep_freed_memory,
    memory_share,
    out_of_memory,
)
from kdscale.training._recipe import learning_rate, make_optimizer
from kdscale.training._spec import (
    METHOD_SPECS,
    SEARCHABLE_RECIPE_FIELDS,
    InferenceForm,
    MethodSpec,
    ModelSpec,
    ObjectiveSpec,
    RecipeSpec,
    TaskSpec,
    TeacherSpec,
    spelled,
)
from kdscale.training._spec_base import Spec, rule_error
from kdscale.training._student import Member, Row, checkpoint_path, student_path
from kdscale.training._teach import CachedTeacher, Teaching
from kdscale.training._teach_parts import kept_bytes
from kdscale.training._teacher import (
    HASH_LETTERS,
    cached_teacher,
    content_hash,
    in_form,
    load_network,
    load_teacher,
    store_teacher,
    teacher_identity,
    teacher_path,
    train_teacher,
    trained_teacher_path,
    weights_path,
)
from kdscale.training._timed import train_timed_cohort

__all__ = [
    "HASH_LETTERS",
    "METHOD_SPECS",
    "SEARCHABLE_RECIPE_FIELDS",
    "Backup",
    "ByteCount",
    "CachedTeacher",
    "Cohort",
    "FormChoice",
    "Group",
    "InferenceForm",
    "Measured",
    "Member",
    "MethodSpec",
    "ModelSpec",
    "ObjectiveSpec",
    "Progress",
    "RecipeSpec",
    "Row",
    "Score",
    "Spec",
    "Status",
    "TaskSpec",
    "TeacherCacheSpec",
    "TeacherSpec",
    "Teaching",
    "cached_teacher",
    "checkpoint_path",
    "content_hash",
    "delete_drafts",
    "evaluate",
    "form_path",
    "give_back_memory",
    "in_form",
    "keep_freed_memory",
    "kept_bytes",
    "learning_rate",
    "load_network",
    "load_teacher",
    "make_optimizer",
    "measure_cohorts",
    "measured_form",
    "memory_share",
    "out_of_memory",
    "read_form",
    "rule_error",
    "settled",
    "spelled",
    "store_teacher",
    "student_path",
    "teacher_identity",
    "teacher_path",
    "train_cohort",
    "train_teacher",
    "train_timed_cohort",
    "trained_teacher_path",
    "weights_path",
]
