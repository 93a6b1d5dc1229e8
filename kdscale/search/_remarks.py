"""What a reader of a study's report must know of how it was trained, in sentences."""

from __future__ import annotations

from kdscale.search._study import Study
from kdscale.training import FormChoice


def crops_remark(study: Study) -> str:
    """Returns what stored crops change; empty without them."""
    crop = study.task.data.augmentation.random_resized_crop
    if crop is None or crop.stored_crops is None:
        return ""
    return (
        f"Each training image had {crop.stored_crops} stored crops, of which an epoch drew one "
        "(random_resized_crop.stored_crops), where the usual recipe takes a new crop in each epoch."
    )


def clock_remark(study: Study) -> str:
    """Returns what a budget in seconds means for who repeats the study; empty without one."""
    if study.budget.match != "wall_clock":
        return ""
    return (
        f"Every trial had {study.budget.seconds:g} seconds of training compute, times "
        "budget.compute where that was searched (budget.match: wall_clock). Time is measured: "
        "repeated, trials take other steps and end with other numbers, and on another or a busier "
        "machine the same seconds are other training."
    )


def form_remark(study: Study, choice: FormChoice | None) -> str:
    """Returns in which other form than the plain one the teacher taught; empty if in none.

    Args:
        study: The study.
        choice: What was measured, if it was.
    """
    form = study.task.teacher.form if choice is None else choice.form
    if form == "plain":
        return ""
    measured = (
        f" When the study began it took {choice.ratio:.2f} of the plain form's time, and its "
        f"outputs differed by at most {choice.difference:.0e} of their largest value."
        if choice is not None
        else ""
    )
    return f"The teacher taught in its folded form, equal up to rounding.{measured}"
