"""The few sentences at the head of a report that anyone can read."""

from __future__ import annotations

from dataclasses import dataclass

from kdscale.analysis import _format as fmt
from kdscale.analysis._estimate import NOISE, Difference, estimate
from kdscale.analysis._findings import Findings
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._settle import next_step
from kdscale.analysis._summary import (
    DISTILLED,
    TEACHER,
    UNDISTILLED,
    attempt_reasons,
    best_configuration,
    candidates,
    configuration_name,
    cost,
    failure_reasons,
    final_difference,
    state_counts,
    summarise,
    validation_difference,
)
from kdscale.records import FinalEvaluation, StudyRecord

TEST = MetricFormat("test_accuracy")


@dataclass(frozen=True)
class Statement:
    """One line of the headline.

    Attributes:
        label: What it is about: ``Question``, ``Answer``, …
        text: One to three sentences.
    """

    label: str
    text: str


def headline(study: StudyRecord, findings: Findings | None = None) -> tuple[Statement, ...]:
    """Returns question, answer, how sure it is, what it cost, and what would settle the rest.

    Args:
        study: The study, finished or not.
        findings: Its statistics, where they are at hand already.
    """
    findings = findings or Findings(study)
    statements = [
        Statement("Unfinished", _unfinished(study)),
        Statement("Question", _question(study)),
        Statement("Answer", _answer(findings)),
        Statement("How sure", _how_sure(study)),
        Statement("Cost", _cost(study)),
        Statement("To settle", next_step(findings)),
        Statement("Failures", _failures(study)),
    ]
    return tuple(statement for statement in statements if statement.text)


def difference_sentence(study: StudyRecord) -> str:
    """Returns best configuration minus undistilled student on validation, in a sentence."""
    if not study.controls:
        return "The study has no undistilled student, so it cannot say whether distillation helps."
    if best_configuration(study) is None:
        return "There is no distilled student yet to set beside the undistilled one."
    difference = validation_difference(study)
    if difference is None:
        return "The best configuration and the undistilled student have no finished seed in common."
    metric = MetricFormat(study.metric)
    text = (
        f"On validation the distilled student is {_distance(difference, metric)} the undistilled "
        f"one ({_known(difference, metric)})"
    )
    if len(candidates(study)) == 1:
        return f"{text}: {_verdict(difference)}."
    # The interval does not know that the best of several was taken: it supports no claim.
    verdict = "" if difference.distinguishable else f": {difference.verdict}"
    return (
        f"{text}{verdict}. The configuration was chosen on these same numbers, which flatters it: "
        "only the test set can tell."
    )


def final_sentence(final: FinalEvaluation) -> str:
    """Returns distilled minus undistilled student on the test set, in a sentence."""
    difference = final_difference(final)
    if difference is None:
        return "On the test set there is no undistilled student to compare with."
    return (
        f"On the test set the distilled student is {_distance(difference, TEST)} the undistilled "
        f"one ({_known(difference, TEST)}): {_verdict(difference)}."
    )


def _question(study: StudyRecord) -> str:
    goal = {"maximize": "highest", "minimize": "lowest"}[study.goal]
    words = MetricFormat(study.metric).words
    number = len(summarise(study))
    word = "seed" if len(study.seeds) == 1 else "seeds"
    seeds = fmt.listed([str(seed) for seed in study.seeds])
    scope = (
        f"{fmt.count(number, 'configuration')} under {word} {seeds}, "
        f"at most {fmt.count(study.epochs, 'epoch')} a trial"
    )
    if not study.parameters:
        return f"What {words} does the student reach? {scope}."
    asked = fmt.listed([*study.parameters])
    return f"Which {asked} give the student the {goal} {words}? {scope}."


def _answer(findings: Findings) -> str:
    study, best = findings.study, findings.best
    if best is None or best.estimate is None:
        return "None yet: no trial has trained to the last epoch."
    metric = MetricFormat(study.metric)
    values = f" ({fmt.parameters(best.parameters)})" if best.parameters else ""
    text = (
        f"Configuration {best.name}{values} has the best mean {metric.words}: "
        f"{metric.value(best.estimate.mean)} ({metric.known(best.estimate)}). "
        f"{plateau_sentence(findings)}"
    )
    return f"{text.strip()} {_test_means(study.final)}".strip()


def plateau_sentence(findings: Findings) -> str:
    """Returns how many configurations the best one can be told from; empty without others."""
    best, level = findings.best, findings.plateau
    if best is None or level is None:
        return ""
    others = len(level.members) + len(level.worse) - 1
    if not others:
        return "No other configuration has trained to the last epoch."
    ahead = configuration_name(level.best)
    if best.number not in level.members:
        return f"{ahead}, which has fewer seeds, is ahead of it by more than noise explains."
    rivals = len(findings.rivals)
    if not rivals:
        return f"It is ahead of {_others(others)} by more than noise explains."
    which = _others(others) if rivals == others else f"{rivals} of {_others(others)}"
    return f"Its difference to {which} is {NOISE}."


def _others(number: int) -> str:
    """Returns ``the 7 other configurations that trained to the last epoch``."""
    if number == 1:
        return "the one other configuration that trained to the last epoch"
    return f"the {number} other configurations that trained to the last epoch"


def _test_means(final: FinalEvaluation | None) -> str:
    if final is None:
        return ""
    means = {
        scores.label: TEST.value(estimate(scores.accuracies.values()).mean)
        for scores in final.scores
        if scores.accuracies
    }
    names = {DISTILLED: f"{DISTILLED} ({configuration_name(final.configuration)})"}
    parts = [
        f"{names.get(label, label)} {means[label]}"
        for label in (TEACHER, UNDISTILLED, DISTILLED)
        if label in means
    ]
    return f"On {fmt.count(final.test_images, 'test image')}: {', '.join(parts)}." if parts else ""


def _how_sure(study: StudyRecord) -> str:
    if study.final is not None:
        return final_sentence(study.final)
    return f"{difference_sentence(study)} The test set has not been read."


def _cost(study: StudyRecord) -> str:
    spent = cost(study)
    controls = f" ({spent.controls} of them undistilled)" if spent.controls else ""
    text = (
        f"{fmt.count(spent.trials, 'trial')}{controls}, {fmt.count(spent.epochs, 'epoch')}, "
        f"{fmt.seconds(spent.train_seconds)} of training."
    )
    counts = state_counts(study)
    spared = sum(trial.is_raced_out for trial in study.trials)
    if counts["pruned"] > spared:
        text += f" Rungs stopped {fmt.count(counts['pruned'] - spared, 'trial')} early."
    if spared:
        raced_out = sum(bool(summary.raced_out) for summary in summarise(study))
        text += (
            f" A race spared {fmt.count(spared, 'trial')}: "
            f"{fmt.count(raced_out, 'configuration')} got no further seed."
        )
    again = fmt.reasons(attempt_reasons(study))
    if again:
        text += f" Cut short and tried again: {again}."
    return text if counts["failed"] else f"{text} No trial failed."


def _failures(study: StudyRecord) -> str:
    reasons = failure_reasons(study)
    failed = sum(number for _, number in reasons)
    if not failed:
        return ""
    return f"{fmt.count(failed, 'trial')} failed: {fmt.reasons(reasons)}."


def _unfinished(study: StudyRecord) -> str:
    counts = state_counts(study)
    left = [f"{counts[state]} {state}" for state in ("running", "waiting") if counts[state]]
    if not left:
        return ""
    total = fmt.count(counts.total(), "trial")
    return f"Of {total}, {' and '.join(left)}: everything below can still change."


def _distance(difference: Difference, metric: MetricFormat) -> str:
    side = "above" if difference.estimate.mean >= 0 else "below"
    return f"{metric.distance(difference.estimate.mean)} {side}"


def _known(difference: Difference, metric: MetricFormat) -> str:
    known = difference.estimate
    if known.low is None:
        return fmt.count(known.n, "paired seed")
    return f"95% interval {metric.signed_interval(known)}, n = {known.n} paired seeds"


def _verdict(difference: Difference) -> str:
    word = difference.verdict
    return f"{word}, beyond seed noise" if difference.distinguishable else word
