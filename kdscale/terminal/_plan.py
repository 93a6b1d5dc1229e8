"""What a study would do, before it does it."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from kdscale.data import AugmentationSpec, usable_bytes
from kdscale.files import Remote, size_text
from kdscale.racing import ERROR_RATE
from kdscale.records import Value
from kdscale.search import COMPUTE, CachePlan, Check, FilesPlan, Study, fewest_and_most

_MILLION = 1e6
_FORMS = {
    "auto": "the teacher plain or folded: measured at the study's start",
    "plain": "the teacher plain",
    "folded": "the teacher folded: BatchNorm in the layers before it, channels_last",
}


def plan_view(study: Study, check: Check) -> Table:
    """Returns the plan as a table of two columns."""
    table = Table(box=None, show_header=False, padding=(0, 1), show_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    resources = study.resources
    seeds = study.seed_list
    rows = {
        "study": f"{study.name}, in {study.folder}",
        "data": f"{study.task.data.name}: {check.train_images:,} training and "
        f"{check.validation_images:,} validation images (the test set is left for the report)",
        "augmentation": _augmentation(study.task.data.augmentation),
        "teacher": _network(check.teacher.name, check.teacher.parameters, check.teacher.macs),
        "inference": _FORMS[study.task.teacher.inference],
        "student": _network(check.student.name, check.student.parameters, check.student.macs),
        "objective": _objective(study),
        "searched": ", ".join(axis.name for axis in study.axes) or "nothing: all is fixed",
        "search": f"{study.search.method}, {study.configurations} configurations × {len(seeds)} "
        f"seeds = {study.trials} trials"
        + _raced(study)
        + (f" + {len(seeds)} undistilled" if study.undistilled else "")
        + f", in {check.generations} generation(s)",
        "cohorts": f"up to {check.cohort_size} trials of a seed train together "
        f"({check.cohort_why})",
        **(
            {"epochs": _epochs(study, check)}
            if study.budget.seconds is None
            else {"seconds": _seconds(study, study.budget.seconds)}
        ),
        "workers": f"{resources.workers} per cohort, each with {resources.cpus_per_worker} CPU(s) "
        f"and {resources.gpus_per_worker:g} GPU(s)",
        **({} if check.cache is None else {"cache": _cache(check.cache)}),
        **({} if check.files is None else {"files": _files(check.files)}),
        "expected": f"{_duration(check.cpu_hours)} of one worker like this machine's CPU; "
        "divide by the cohorts that run at once",
    }
    for name, text in rows.items():
        table.add_row(name, escape(text))
    for reason in check.refused:
        table.add_row("[red]refused[/]", f"part of the search space: {escape(reason)}")
    return table


def _augmentation(spec: AugmentationSpec) -> str:
    crop = spec.random_resized_crop
    if crop is None:
        kind = f"crop after {spec.crop_padding} pixels of padding" if spec.crop_padding else ""
    elif crop.stored_crops is None:
        kind = "a new random resized crop in each epoch"
    else:
        kind = (
            f"one of {crop.stored_crops} stored random resized crops in each epoch, which changes "
            "the recipe: the report says so"
        )
    return " and ".join(filter(None, (kind, "flip" if spec.flip else ""))) or "none"


def _network(name: str, parameters: int, macs: int) -> str:
    return f"{name}: {parameters:,} parameters, {macs / _MILLION:,.1f} M multiply-accumulates"


def _objective(study: Study) -> str:
    searched = {axis.target.name for axis in study.axes}

    def weighted(name: str, weight: Value, label: str) -> str:
        return f"{'searched' if name in searched else f'{weight:g}'} × {label}"

    methods = study.objective.methods
    return " + ".join(
        [weighted("ce_weight", study.objective.ce_weight, "cross-entropy")]
        + [weighted(f"{m.label}.weight", m.values["weight"], m.label) for m in methods]
    )


def _raced(study: Study) -> str:
    if study.tolerance is None:
        return ""
    fewest, most = fewest_and_most(study)
    return (
        f", of which a race trains {fewest} to {most}: no further seed for what is surely no "
        f"better than another (level {ERROR_RATE:.0%}, tolerance {study.tolerance:g})"
    )


def _epochs(study: Study, check: Check) -> str:
    most = "at most " if study.tolerance is not None else ""
    text = f"{study.budget.epochs} a trial; {most}{check.student_epochs} of students in all"
    if study.rung_epochs:
        assert study.rungs is not None
        rungs = ", ".join(map(str, study.rung_epochs))
        which = "seed by seed" if study.tolerance is None else "under the first seed"
        compared = min(study.generation_size, study.configurations)
        text += (
            f" ({check.without_rungs} without rungs: after epoch {rungs} the best "
            f"1/{study.rungs.eta} of {compared} configurations go on, {which})"
        )
    return f"{text}, {check.teacher_epochs} of the teacher's passes"


def _seconds(study: Study, seconds: float) -> str:
    multiples = " × budget.compute" if any(a.name == COMPUTE for a in study.axes) else ""
    return (
        f"{seconds:g}{multiples} of training compute a trial, evaluated at {study.budget.epochs} "
        "equal parts of them; time is measured, so no two runs end with the same numbers"
    )


def _cache(plan: CachePlan) -> str:
    changed = plan.what_students_see
    note = f"; students see {changed}, which changes results" if changed else ""
    if plan.live:
        return f"the teacher teaches live: {plan.live}{note}"
    room = usable_bytes(plan.quota_bytes)
    short = f" (it writes {size_text(room)} of that, the rest stays live)"
    return (
        f"this study fills at most {size_text(plan.study_bytes)}, all views take "
        f"{size_text(plan.full_bytes)} ({plan.images:,} images × {plan.views} views × "
        f"{size_text(plan.entry_bytes)}); quota {size_text(plan.quota_bytes)}"
        f"{short if room < plan.study_bytes else ''}, in {plan.folder}{note}"
    )


def _files(plan: FilesPlan) -> str:
    text = (
        f"{plan.trials} checkpoints of {size_text(plan.checkpoint_bytes)} and as many students of "
        f"{size_text(plan.student_bytes)}: at most {size_text(plan.bytes)}"
    )
    if plan.quota_bytes is not None:
        text += f"; quota {size_text(plan.quota_bytes)}"
    return f"{text}; copied to {Remote(plan.remote)}" if plan.remote else text


def _duration(hours: float) -> str:
    minutes = hours * 60.0
    if minutes < 1.0:
        return f"{minutes * 60.0:.0f} s"
    return f"{minutes:.0f} min" if hours < 3.0 else f"{hours:.1f} h"
