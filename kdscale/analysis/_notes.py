"""What a reader must know to read a table of the report rightly."""

from __future__ import annotations

import math

from kdscale.analysis import _format as fmt
from kdscale.analysis._estimate import estimate
from kdscale.analysis._findings import FEWEST_CONFIGURATIONS, PRIMARY, Findings
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._summary import best_configuration, candidates, configuration_name
from kdscale.analysis.statistics import NO_EFFECT
from kdscale.racing import ERROR_RATE
from kdscale.records import FinalEvaluation, StudyRecord

_NORMAL_QUANTILE = 1.96

BAND_NOTE = (
    "The 95% band, of the jackknife over configurations, ends at as many trials as a quarter of "
    "these: beyond, too much hangs on the very best ones. Fewer than 8 configurations have none."
)


def selection_note(study: StudyRecord) -> str:
    """Returns why the best validation value is too good; empty where nothing was chosen."""
    rivals = len(candidates(study))
    if rivals < 2:
        return ""
    return (
        f"It is the best of {rivals} means, and the best of several noisy numbers is on average "
        "better than what it measures. The test set, which no choice has seen, is free of this."
    )


def curse_note(findings: Findings) -> str:
    """Returns the best value without the luck of having been chosen; empty if that is not known."""
    known, best = findings.best_value, findings.best
    if known is None or best is None or known.configuration != best.number:
        return ""
    if known.shrunk is None or known.low is None or known.high is None or known.kept is None:
        return ""
    metric = MetricFormat(findings.study.metric)
    interval = f"{metric.number(known.low)} to {metric.number(known.high)}"
    return (
        f"It is the best of {known.configurations + len(findings.far_worse)} means, and the best "
        "of several noisy numbers is on average better than what it measures. With that luck taken "
        f"off it is {metric.value(known.shrunk)} (95% interval {interval}; shrunk towards the mean "
        f"of all{_but(findings)}, from which it keeps {100.0 * known.kept:.0f}% of its distance); "
        f"a bootstrap that repeats the choice says {metric.value(known.bootstrapped)}. The test "
        "set, which no choice has seen, is free of this luck."
    )


def noise_note(findings: Findings) -> str:
    """Returns how far values move from seed to seed; empty if nothing shows it."""
    floor = findings.floor
    if floor is None or floor.within.sd == 0.0:
        return ""
    metric = MetricFormat(findings.study.metric)
    interval = f"{metric.number(floor.within.low)} to {metric.number(floor.within.high)}"
    text = (
        f"Noise floor: values of one configuration move by {metric.distance(floor.within.sd)} "
        f"(standard deviation; 95% interval {interval}) from seed to seed, over "
        f"{fmt.count(floor.trials, 'trial')} of {fmt.count(floor.configurations, 'configuration')}."
    )
    share = floor.paired_share
    if share is not None:
        text += (
            f" {100.0 * share:.0f}% of that variance is what a seed does to all configurations "
            "alike; comparing within seeds takes it out."
        )
    if findings.far_worse:
        names = fmt.listed([configuration_name(number) for number in findings.far_worse])
        text += (
            f" Left out, here and where differences are judged: {names}, far worse than the rest, "
            "as training that collapses is, with a noise of its own."
        )
    return text


def race_note(study: StudyRecord) -> str:
    """Returns how a table of configurations that were raced is to be read; empty without a race."""
    if not any(trial.is_raced_out for trial in study.trials):
        return ""
    return (
        "Seeds were raced: configurations that are surely no better than another got no further "
        "seed. The chances that one of them is better by more than the tolerance, all the same, "
        f"add up to {ERROR_RATE:.0%} at most in each race (a design is one, and each generation of "
        "a search that learns). Their means are over fewer seeds and not to be set beside the "
        "others: what is said against the best, and all differences, compare within the seeds "
        "that two configurations share."
    )


def difference_note(findings: Findings) -> str:
    """Returns how the table of differences is to be read."""
    undistilled = " and to the undistilled student" if findings.to_undistilled else ""
    return (
        f"Differences to the best configuration{undistilled}, paired by seed, with the noise "
        f"estimated from all configurations{_but(findings)}. Intervals are 95% each by itself; p "
        "is adjusted for all comparisons of its column (Holm's method), and only p of at most 0.05 "
        "counts as better or worse. Against the best of the same numbers all others look worse "
        "than they are: the plateau above allows for that. The bootstrap interval draws from the "
        "residuals of the same configurations and needs no normal noise."
    )


def _but(findings: Findings) -> str:
    """Returns how many configurations are left out of "all configurations", if any are."""
    count = len(findings.far_worse)
    return f" but {count} far worse than the rest" if count else ""


def effects_note(findings: Findings) -> str:
    """Returns what importances are of, and what they leave out."""
    seen = sorted(effect.parameters[0] for effect in findings.effects[PRIMARY] if effect.detectable)
    said = (
        f"By the total Sobol index there is an effect of {fmt.listed(seen)}."
        if seen
        else f"By the total Sobol index there is {NO_EFFECT} of any hyperparameter: what is seen "
        "is not distinguishable from noise."
    )
    n = findings.surrogate.configurations
    stopped = len({row.configuration for row in findings.results.rows}) - n
    text = (
        f"{said} Over the {n} configurations that trained to the last epoch: how much of what is "
        "seen each hyperparameter explains, less what the same measure says when scores are "
        "shuffled. Bars are 95% bootstrap intervals; where one does not lie above zero (grey), "
        f"there is {NO_EFFECT}. Other measures ask other questions, and each is wrong in 5% of "
        "cases by itself: one of many that sees something proves little."
    )
    if findings.one_at_a_time_only:
        text += (
            " In a one-at-a-time design most configurations share the baseline's values, which "
            "leaves these measures little to see: the curves above say more."
        )
    if stopped > 0:
        text += (
            f" The {fmt.count(stopped, 'configuration')} that rungs stopped under every seed "
            "enter nothing here: what only parts bad from good looks weaker than it is."
        )
    return text


def surface_note(findings: Findings) -> str:
    """Returns how curves and surface are to be read."""
    return (
        "Blue lines: mean of a Gaussian process fitted to the "
        f"{findings.surrogate.configurations} configurations, all other hyperparameters averaged "
        "over those tried; bands are 95% intervals of that mean, dots the configurations. Where "
        "the band holds a level line, the curve is not distinguishable from noise."
    )


def left_out(findings: Findings) -> tuple[str, ...]:
    """Returns what the report would show of a larger study, and what that takes."""
    study = findings.study
    if findings.best is None:
        return ()
    n, found = findings.surrogate.configurations, []
    if findings.floor is None:
        found.append("The noise floor: it needs a configuration with two complete seeds.")
    if study.parameters and not findings.effects:
        found.append(
            "Importances, interactions and response surface: they need "
            f"{FEWEST_CONFIGURATIONS} configurations that trained to the last epoch and do not "
            f"all score the same; there are {n}."
        )
    if len(study.parameters) > 1 and not any(len(line.values) > 2 for line in findings.lines):
        found.append(
            "Curves of one hyperparameter at a time: no three complete configurations differ in "
            "one alone (search.method: oat or grid lays them out so)."
        )
    return tuple(found)


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


def warm_note(findings: Findings) -> str:
    """Returns whether the configurations helped that the search began with; empty without any."""
    study, level = findings.study, findings.plateau
    if not study.first:
        return ""
    names = fmt.listed([configuration_name(number) for number in range(study.first)])
    source = f"the best of {study.warm_start}" if study.warm_start else "given (search.first)"
    told = f"The search began with {names}, {source}"
    trained = [] if level is None else [*level.members, *level.worse]
    if level is None or not min(trained) < study.first <= max(trained):
        return f"{told}."
    given = [number for number in level.members if number < study.first]
    found = [number for number in level.members if number >= study.first]
    if given and found:
        return f"{told}: whether that helped cannot be told, some of its own are as good."
    if given:
        return f"{told}. It helped: what the search found itself is worse, by more than noise."
    return f"{told}. It did not help: the search found better itself, by more than noise."
