"""The loop that trains students under a teacher, and the models of what it trains."""

from kdscale.training._spec import (
    METHOD_SPECS,
    SEARCHABLE_RECIPE_FIELDS,
    MethodSpec,
    ModelSpec,
    ObjectiveSpec,
    RecipeSpec,
    Spec,
    TaskSpec,
    TeacherSpec,
    rule_error,
)

__all__ = [
    "METHOD_SPECS",
    "SEARCHABLE_RECIPE_FIELDS",
    "MethodSpec",
    "ModelSpec",
    "ObjectiveSpec",
    "RecipeSpec",
    "Spec",
    "TaskSpec",
    "TeacherSpec",
    "rule_error",
]
