"""What is trained: pydantic models of the task and the objective, as a study file spells them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from kdscale.data import DataSpec
from kdscale.errors import did_you_mean
from kdscale.losses import (
    METHODS,
    Hyperparameter,
    Method,
    Schedule,
    TermConfig,
    common_hyperparameters,
)
from kdscale.models import ZOO, model_names
from kdscale.records import Value
from kdscale.training._cache_spec import TeacherCacheSpec
from kdscale.training._spec_base import Spec, rule_error

SEARCHABLE_RECIPE_FIELDS = (
    "lr",
    "min_lr",
    "momentum",
    "weight_decay",
    "label_smoothing",
    "warmup_epochs",
    "clip_norm",
    "gamma",
)
"""Recipe fields that may differ between the students of a cohort, and so can be searched."""

CompileMode = Literal["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""The modes of torch.compile beside its default."""

InferenceForm = Literal["plain", "folded"]
"""The forms in which a teacher can teach."""

_RESERVED_LABELS = ("loss", "ce", "accuracy", "ce_weight", "recipe", "budget")


class ModelSpec(Spec):
    """A network by name."""

    model: str = Field(json_schema_extra={"examples": list[JsonValue](model_names())})
    """Name of the network: one of the zoo's (resnet20, wrn_40_2, ...) or any of timm's."""

    args: dict[str, Any] = Field({})
    """Arguments of the network's constructor, such as ``{width: 6}``."""

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, name: str) -> str:
        if name in ZOO:
            return name
        import timm  # takes seconds: only for names outside the zoo

        if timm.is_model(name.removeprefix("timm/")):
            return name
        hint = did_you_mean(name.lower(), [*ZOO, *timm.list_models()])
        raise rule_error("must be a model of the zoo or of timm", hint=hint)

    @field_validator("args")
    @classmethod
    def _args_are_known(cls, args: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if info.data.get("model") in ZOO:
            known = ZOO[info.data["model"]].arguments
            rule = f"must be an argument of {info.data['model']} ({', '.join(known) or 'none'})"
            for name in args:
                if name not in known:
                    hint = did_you_mean(name, known) or "remove it"
                    raise rule_error(rule, hint=hint, at=(name,))
        return args


class RecipeSpec(Spec):
    """How a network is trained."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser."""

    lr: float = Field(0.05, gt=0)
    """Learning rate after the warm-up."""

    momentum: float = Field(0.9, ge=0, le=1)
    """Momentum of SGD."""

    nesterov: bool = False
    """Whether SGD uses Nesterov's momentum."""

    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.9, 0.999)
    """Decay rates of AdamW's first and second moment."""

    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay."""

    batch_size: int = Field(64, ge=1)
    """Images a step, summed over all workers."""

    schedule: Literal["cosine", "milestones", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""

    milestones: tuple[Annotated[int, Field(ge=1)], ...] = Field((), validate_default=True)
    """Epochs after which the learning rate is multiplied by ``gamma``, ascending."""

    gamma: float = Field(0.1, gt=0, le=1)
    """Factor of the learning rate at a milestone."""

    min_lr: float = Field(0.0, ge=0)
    """Learning rate that the schedule does not fall below."""

    warmup_epochs: int = Field(0, ge=0)
    """Epochs of linear warm-up: epoch e of w, counted from 1, trains with ``lr * e / w``."""

    label_smoothing: float = Field(0.0, ge=0, le=1)
    """Label smoothing of the cross-entropy."""

    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of a step's gradient; null for no clipping."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the networks' forward and backward pass: bf16 is autocast."""

    channels_last: bool = False
    """Whether networks use the channels_last memory format."""

    compile: bool | CompileMode = False
    """Whether students are compiled with torch.compile, or in which of its modes:
    ``reduce-overhead`` replays CUDA graphs."""

    executor: Literal["auto", "loop", "grouped", "vmap"] = "auto"
    """How the students of a cohort are computed: one after the other (loop), or stacked, CNNs by
    grouped convolutions and others by torch.func.vmap. auto is the loop on CPUs, bitwise a student
    trained alone; on a GPU the fastest of a few timed steps, equal to rounding. Methods that change
    the student's end or run it twice are trained by the loop beside the others."""

    sync_batchnorm: bool = False
    """Whether BatchNorm statistics are shared by all workers (GPUs only)."""

    @field_validator("executor")
    @classmethod
    def _compiled_students_loop(cls, executor: str, info: ValidationInfo) -> str:
        if executor in ("grouped", "vmap") and info.data.get("compile"):
            rule = "must be auto or loop for students that are compiled"
            raise rule_error(rule, hint="write executor: loop, or compile: false")
        return executor

    @field_validator("milestones")
    @classmethod
    def _milestones_fit(cls, milestones: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        schedule = info.data.get("schedule")
        if schedule == "milestones" and not milestones:
            hint = "for 240 epochs the literature takes milestones: [150, 180, 210]"
            raise rule_error("must be given with schedule: milestones", hint=hint)
        if schedule in ("cosine", "constant") and milestones:
            hint = "write schedule: milestones"
            raise rule_error("must be given only with schedule: milestones", hint=hint)
        if list(milestones) != sorted(set(milestones)):
            raise rule_error("must ascend", hint=f"write {sorted(set(milestones))}")
        return milestones


class TeacherSpec(ModelSpec):
    """The teacher: a network with weights, or one that kdscale trains first."""

    weights: str | None = Field(None, min_length=1)
    """Where the weights come from: ``package:NAME`` (shipped with kdscale), ``timm``
    (pretrained), or the path of a checkpoint, relative to the study file's folder if it is there,
    else to the working directory. If omitted, kdscale trains the teacher."""

    epochs: int | None = Field(None, ge=1)
    """Epochs of the teacher's own training; default: the study's ``budget.epochs``."""

    recipe: RecipeSpec | None = None
    """Recipe of the teacher's own training; default: the task's recipe."""

    cache: TeacherCacheSpec = TeacherCacheSpec()
    """The teacher cache."""

    inference: Literal["auto"] | InferenceForm = "auto"
    """Form in which it teaches. ``folded`` is the faster one, equal up to rounding: BatchNorm in
    the layers before it, channels_last. ``auto`` measures once which pays, and keeps to that."""

    @property
    def form(self) -> InferenceForm:
        """The form in which it teaches: plain as long as ``auto`` is not settled."""
        return "plain" if self.inference == "auto" else self.inference

    @field_validator("epochs", "recipe")
    @classmethod
    def _only_if_trained(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("weights") is not None:
            rule = "must be given only for a teacher that kdscale trains"
            raise rule_error(rule, hint="remove it, or remove weights")
        return value


class TaskSpec(Spec):
    """Data set, teacher, student and training recipe."""

    data: DataSpec
    """The data set."""

    teacher: TeacherSpec
    """The network that is distilled."""

    student: ModelSpec
    """The network that learns."""

    recipe: RecipeSpec = RecipeSpec()
    """How students are trained."""


class MethodSpec(Spec):
    """One method of the objective with its label, weight and fixed hyperparameters.

    Each entry of `kdscale.losses.METHODS` has a subclass with a field for every hyperparameter.
    """

    method: str
    """Name of the method."""

    as_: str | None = Field(None, alias="as", pattern=r"^[a-z][a-z0-9_]*$")
    """Label in metrics and in names of parameters; default: the method's name."""

    @field_validator("as_")
    @classmethod
    def _label_is_free(cls, label: str | None) -> str | None:
        if label in _RESERVED_LABELS:
            names = ", ".join(_RESERVED_LABELS)
            raise rule_error(f"must be none of {names}", hint="they name other things")
        return label

    @property
    def label(self) -> str:
        """The name of this entry in metrics and parameters."""
        return self.as_ or self.method

    @model_validator(mode="after")
    def _epochs_are_in_order(self) -> Self:
        if broken := _schedule(self.values).broken_rule():
            field, rule = broken
            raise rule_error(rule, at=(field,))
        return self

    @property
    def values(self) -> dict[str, Value]:
        """Every hyperparameter, weight and schedule included, by the name that files use."""
        return {item.name: getattr(self, _attribute(item.name)) for item in spelled(self.method)}

    @property
    def fixed(self) -> frozenset[str]:
        """Names of the values that the file gives."""
        return frozenset(name for name in self.values if _attribute(name) in self.model_fields_set)

    def term(self, values: Mapping[str, Value]) -> TermConfig:
        """Returns the configured term of the objective.

        Args:
            values: Searched values by name.
        """
        method = METHODS[self.method]
        given = {**self.values, **values}
        common = {item.name: given.pop(item.name) for item in common_hyperparameters(method)}
        return TermConfig(
            self.label,
            self.method,
            float(common["weight"]),
            method.complete(given),
            _schedule(common),
            per_worker=bool(common.get("per_worker", False)),
        )


def spelled(method: str) -> tuple[Hyperparameter, ...]:
    """Returns what a study file may set of a method: its own hyperparameters and the common."""
    return (*METHODS[method].hyperparameters, *common_hyperparameters(METHODS[method]))


def _schedule(values: Mapping[str, Value]) -> Schedule:
    kind: Any = values["schedule"]
    return Schedule(
        kind,
        float(values["final_factor"]),
        int(values["warmup_epochs"]),
        int(values["start_epoch"]),
        int(values["stop_epoch"]),
        str(values["steps"]),
    )


def _attribute(name: str) -> str:
    return "lambda_" if name == "lambda" else name


def _field(hyperparameter: Hyperparameter) -> tuple[Any, Any]:
    """Returns type and default of a hyperparameter as `pydantic.create_model` wants them."""
    kind: Any = type(hyperparameter.default)
    bounds: dict[str, Any] = {}
    if hyperparameter.choices:
        kind = Literal[hyperparameter.choices]
    if hyperparameter.pattern:
        kind = Annotated[str, AfterValidator(_matching(hyperparameter))]
        bounds["json_schema_extra"] = {"pattern": f"^({hyperparameter.pattern})$"}
    if hyperparameter.low is not None:
        bounds["gt" if hyperparameter.low_open else "ge"] = kind(hyperparameter.low)
    if hyperparameter.high is not None:
        bounds["le"] = kind(hyperparameter.high)
    if _attribute(hyperparameter.name) != hyperparameter.name:
        bounds["alias"] = hyperparameter.name
    return kind, Field(hyperparameter.default, description=hyperparameter.help, **bounds)


def _matching(hyperparameter: Hyperparameter) -> Callable[[str], str]:
    def check(value: str) -> str:
        if rule := hyperparameter.broken_rule(value):
            raise rule_error(rule)
        return value

    return check


class _Described(MethodSpec):
    """The base of those made below, whose fields are described here: no source is read for them.

    Reading it took seconds in every process that imports this.
    """

    model_config = ConfigDict(use_attribute_docstrings=False)


def _method_spec(method: Method) -> type[MethodSpec]:
    fields: dict[str, Any] = {
        _attribute(hyperparameter.name): _field(hyperparameter)
        for hyperparameter in spelled(method.name)
    }
    about = f"{method.title} ({method.source})."
    name: Any = method.name
    fields["method"] = (Literal[name], Field(description=about))
    title = f"{method.name.title().replace('_', '')}MethodSpec"
    return create_model(title, __base__=_Described, __module__=__name__, __doc__=about, **fields)


METHOD_SPECS: dict[str, type[MethodSpec]] = {
    name: _method_spec(method) for name, method in METHODS.items()
}
"""The model of each method's entry in a study file."""

# Pickle finds a class by its module and name.
globals().update({spec.__name__: spec for spec in METHOD_SPECS.values()})

if TYPE_CHECKING:
    AnyMethodSpec = MethodSpec
else:
    AnyMethodSpec = Annotated[reduce(or_, METHOD_SPECS.values()), Field(discriminator="method")]


class ObjectiveSpec(Spec):
    """What a student minimises: cross-entropy plus weighted methods."""

    ce_weight: float = Field(1.0, ge=0)
    """Weight of the cross-entropy with the labels."""

    ce_start_epoch: int = Field(1, ge=1)
    """The first epoch with the cross-entropy, from 1: later than that for methods that first
    prepare the student's features alone (AB, FT)."""

    methods: tuple[AnyMethodSpec, ...] = Field(json_schema_extra={"minItems": 1})
    """The methods."""

    @field_validator("methods")
    @classmethod
    def _labels_name_methods(cls, methods: tuple[MethodSpec, ...]) -> tuple[MethodSpec, ...]:
        if not methods:
            raise rule_error("must name a method", hint="`kdscale methods` lists them")
        counts = Counter(method.label for method in methods)
        for index in reversed(range(len(methods))):
            label = methods[index].label
            if counts[label] > 1:
                hint = f"give one of them another label: as: {label}_2"
                rule = f"must have a label of its own ({label} is there {counts[label]} times)"
                at = (index, "as" if methods[index].as_ else "method")
                raise rule_error(rule, hint=hint, at=at)
        return methods
