"""What a reader must know to read a table of the report rightly."""

from __future__ import annotations

import math

from kdscale.analysis import _format as fmt
from kdscale.analysis._estimate import estimate
from kdscale.analysis._summary import best_configuration, candidates, configuration_name
from kdscale.records import FinalEvaluation, StudyRecord

_NORMAL_QUANTILE = 1.96


def selection_note(study: StudyRecord) -> str:
    """Returns why the best validation value is too good; empty where nothing was chosen."""
    rivals = len(candidates(study))
    if rivals < 2:
        return ""
    return (
        f"It is the best of {rivals} means, and the best of several noisy numbers is on average "
        "better than what it measures. The test set, which no choice has seen, is free of this."
    )


def training_note(study: StudyRecord) -> str:
    """Returns what was other in the training than its recipe says; empty if nothing was."""
    return " ".join(study.remarks)


def final_note(study: StudyRecord) -> str:
    """Returns how often the test set was read and what its size lets one know."""
    final = study.final
    if final is None:
        return "There is no final evaluation: the test set has not been read."
    read = (
        "The test set was read once."
        if final.reads == 1
        else (
            f"The test set has been read {final.reads} times: from the second reading on it is no "
            "longer free of choices."
        )
    )
    images = (
        f"{fmt.count(final.test_images, 'test image')}. Intervals are over seeds, for these images"
    )
    half = _sampling_points(final)
    sampling = (
        f"; other images of the same kind would move one network's accuracy by about ±{half:.1f} "
        "points (95%), and all networks partly together."
        if half
        else "."
    )
    return f"{read} {images}{sampling}{_other_choice(study, final)}"


def _sampling_points(final: FinalEvaluation) -> float:
    """Returns half the binomial interval of a typical accuracy, in percentage points."""
    values = [value for scores in final.scores for value in scores.accuracies.values()]
    if not values or final.test_images < 1:
        return 0.0
    share = min(max(estimate(values).mean / 100.0, 0.0), 1.0)
    return 100.0 * _NORMAL_QUANTILE * math.sqrt(share * (1.0 - share) / final.test_images)


def _other_choice(study: StudyRecord, final: FinalEvaluation) -> str:
    best = best_configuration(study)
    if best is None or best.number == final.configuration:
        return ""
    chosen = configuration_name(final.configuration)
    return f" It was read for {chosen}; by now the best configuration is {best.name}."
