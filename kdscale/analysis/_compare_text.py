"""The sentences of a comparison of studies, that anyone can read."""

from __future__ import annotations

import math

from kdscale.analysis import _format as fmt
from kdscale.analysis._compare import StudyComparison
from kdscale.analysis._estimate import NOISE
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._headline import Statement
from kdscale.analysis._summary import cost, state_counts
from kdscale.analysis.statistics import FEWEST_TO_SEARCH, MethodComparison

_TEST = MetricFormat("test_accuracy")
_MOST_PAIRS = 3


def comparison_headline(comparison: StudyComparison) -> tuple[Statement, ...]:
    """Returns question, answer, how sure it is, and what it is worth at equal budget and cost."""
    statements = [
        Statement("Unfinished", _unfinished(comparison)),
        Statement("Question", _question(comparison)),
        Statement("Answer", _answer(comparison)),
        Statement("How sure", _how_sure(comparison)),
        Statement("Equal budget", _budget(comparison)),
        Statement("Cost", _cost(comparison)),
    ]
    return tuple(statement for statement in statements if statement.text)


def _question(comparison: StudyComparison) -> str:
    goal = {"maximize": "highest", "minimize": "lowest"}[comparison.goal]
    names = fmt.listed([*comparison.studies])
    return f"Which of {names} gives the student the {goal} {comparison.metric.words}?"


def _answer(comparison: StudyComparison) -> str:
    if not comparison.ranked:
        return "None yet: no trial has trained to the last epoch."
    told = []
    for name in comparison.ranked:
        best = comparison.findings[name].best
        assert best is not None
        assert best.estimate is not None
        told.append(f"{name} {comparison.metric.estimate(best.estimate)} with {best.name}")
    text = f"By the mean {comparison.metric.words} of its best configuration: {'; '.join(told)}."
    without = [name for name in comparison.studies if name not in comparison.ranked]
    if without:
        text += f" {fmt.listed(without)} has no configuration trained to the last epoch."
    return text


def _how_sure(comparison: StudyComparison) -> str:
    if len(comparison.ranked) < 2:
        return ""
    parts = [_pairs(comparison.test, _TEST, "On the test set")]
    if comparison.untested:
        names = fmt.listed(comparison.untested)
        parts.append(
            f"The test set does not compare {names}. "
            + _pairs(comparison.validation, comparison.metric, "On validation")
            + " The configurations were chosen on these same numbers, which flatters a study that "
            "tried more of them: only the test set can tell."
        )
    parts += [
        f"{first} and {second} have no seed in common, so nothing pairs them."
        for first, second in comparison.unpaired
    ]
    return " ".join(part for part in parts if part)


def _pairs(pairs: tuple[MethodComparison, ...], metric: MetricFormat, where: str) -> str:
    if not pairs:
        return ""
    told = [_pair(pair, metric) for pair in pairs[:_MOST_PAIRS]]
    more = "; the table has the other pairs" if len(pairs) > _MOST_PAIRS else ""
    return f"{where} {'; '.join(told)}{more}."


def _pair(pair: MethodComparison, metric: MetricFormat) -> str:
    known = pair.difference
    side = "above" if known.mean >= 0 else "below"
    seeds = fmt.count(known.n, "paired seed")
    sure = f"95% interval {metric.signed_interval(known)}, " if known.low is not None else ""
    verdict = pair.verdict if pair.verdict == NOISE else f"{pair.verdict}, beyond seed noise"
    return (
        f"{pair.first} is {metric.distance(known.mean)} {side} {pair.second} "
        f"({sure}n = {seeds}): {verdict}"
    )


def _budget(comparison: StudyComparison) -> str:
    told = []
    for one in comparison.gaps[:_MOST_PAIRS]:
        metric, gap = comparison.metric, one.gap
        trials = len(gap.low) or (len(gap.budgets) + 1) // 2
        value = gap.difference[trials - 1]
        word = "better" if value >= 0 else "worse"
        sure = f": with fewer than {FEWEST_TO_SEARCH} configurations nothing shows how sure that is"
        if gap.low:
            low, high = gap.low[-1], gap.high[-1]
            sure = f" (95% band of better {metric.signed(low)} to {metric.signed(high)})"
            sure += f": {NOISE}" if low <= 0.0 <= high else ""
        told.append(
            f"after {fmt.count(trials, 'complete trial')} each, {one.first} is expected to have "
            f"found a value {metric.distance(value)} {word} than {one.second}{sure}"
        )
    if not told:
        return ""
    text = "; ".join(told)
    stopped = any(state_counts(study)["pruned"] for study in comparison.studies.values())
    more = " Trials that rungs stopped count in the curves by minutes alone." if stopped else ""
    return f"{text[0].upper()}{text[1:]}.{more}"


def _cost(comparison: StudyComparison) -> str:
    told = []
    for name, study in comparison.studies.items():
        spent = cost(study)
        trials, epochs = fmt.count(spent.trials, "trial"), fmt.count(spent.epochs, "epoch")
        told.append(f"{name} {trials}, {epochs}, {fmt.seconds(spent.train_seconds)} of training")
    whole = math.fsum(cost(study).train_seconds for study in comparison.studies.values())
    return f"{'; '.join(told)}. Together {fmt.seconds(whole)}."


def _unfinished(comparison: StudyComparison) -> str:
    told = []
    for name, study in comparison.studies.items():
        counts = state_counts(study)
        left = counts["running"] + counts["waiting"]
        if left:
            told.append(f"{name} {left} of {fmt.count(counts.total(), 'trial')}")
    return f"Still to end: {fmt.listed(told)}. Everything below can change." if told else ""
