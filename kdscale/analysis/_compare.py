"""Several studies side by side: what may be compared, and the statistics of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from ruamel.yaml import YAML

from kdscale.analysis._estimate import CONFIDENCE, NOISE, Goal
from kdscale.analysis._findings import Findings
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._summary import DISTILLED
from kdscale.analysis.statistics import (
    BudgetGap,
    MethodComparison,
    Results,
    at_equal_budget,
    compare_methods,
    holm,
)
from kdscale.errors import UserError
from kdscale.records import StudyRecord

_UNCOMPARED = frozenset({"name", "resources", "storage", "tracking"})
"""Parts of a study file that move no number, or are named elsewhere."""


@dataclass(frozen=True)
class Gap:
    """Two studies at equal search budget.

    Attributes:
        first: Name of the first study.
        second: Name of the second.
        gap: First minus second expected best value by number of trials.
    """

    first: str
    second: str
    gap: BudgetGap


class StudyComparison:
    """Two or more studies of one metric on one data set.

    Args:
        studies: The studies, finished or not.

    Attributes:
        studies: The studies by a name of their own: where two have one name, with their folder.
        metric: How their metric is written.

    Raises:
        UserError: They cannot be compared.
    """

    def __init__(self, studies: Sequence[StudyRecord]) -> None:
        _check(studies)
        self.studies: dict[str, StudyRecord] = dict(zip(_names(studies), studies, strict=True))
        self.metric = MetricFormat(studies[0].metric)
        self.goal = studies[0].goal

    @cached_property
    def findings(self) -> Mapping[str, Findings]:
        """Study -> its statistics."""
        return {name: Findings(study) for name, study in self.studies.items()}

    @cached_property
    def ranked(self) -> tuple[str, ...]:
        """The studies that have a best configuration, from the best mean down."""
        sign = -1.0 if self.goal == "maximize" else 1.0
        means = {
            name: sign * found.best.estimate.mean
            for name, found in self.findings.items()
            if found.best is not None and found.best.estimate is not None
        }
        return tuple(sorted(means, key=lambda name: (means[name], name)))

    @cached_property
    def validation(self) -> tuple[MethodComparison, ...]:
        """The best configurations in the studies' metric, on which they were chosen."""
        return _compared({name: self._best_values(name) for name in self.ranked}, self.goal)

    @cached_property
    def test(self) -> tuple[MethodComparison, ...]:
        """The best configurations on the test set; empty where fewer than two have been tested."""
        found, images = {}, set()
        for name in self.ranked:
            best, final = self.findings[name].best, self.studies[name].final
            if best is not None and final is not None and final.configuration == best.number:
                scores = {one.label: one.accuracies for one in final.scores}
                found[name] = scores.get(DISTILLED, {})
                images.add(final.test_images)
        return _compared(found, "maximize") if len(images) == 1 else ()

    @property
    def untested(self) -> tuple[str, ...]:
        """The studies with a best configuration that the test set does not compare."""
        tested = {name for pair in self.test for name in (pair.first, pair.second)}
        return tuple(name for name in self.ranked if name not in tested)

    @property
    def unpaired(self) -> tuple[tuple[str, str], ...]:
        """Pairs of studies whose best configurations have no seed in common."""
        return tuple(
            (first, second)
            for first, second in combinations(self.ranked, 2)
            if not self._best_values(first).keys() & self._best_values(second).keys()
        )

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """Every two studies at equal numbers of complete trials."""
        pairs = combinations(self.ranked, 2)
        found = ((a, b, at_equal_budget(self._results(a), self._results(b))) for a, b in pairs)
        return tuple(Gap(a, b, gap) for a, b, gap in found if gap is not None)

    @cached_property
    def settings(self) -> Mapping[str, tuple[str, ...]]:
        """What differs between the study files: key -> the value of each study, or a dash."""
        files = [dict(_flat(_file(study))) for study in self.studies.values()]
        keys = list(dict.fromkeys(key for file in files for key in file))
        rows = {key: tuple(file.get(key, "–") for file in files) for key in keys}
        return {key: row for key, row in rows.items() if len(set(row)) > 1}

    def _best_values(self, name: str) -> Mapping[int, float]:
        best = self.findings[name].best
        return best.values if best is not None else {}

    def _results(self, name: str) -> Results:
        return self.findings[name].results


def _check(studies: Sequence[StudyRecord]) -> None:
    if len(studies) < 2:
        raise UserError(f"compare: must be given two studies or more, but got {len(studies)}")
    folders = Counter(study.folder.resolve() for study in studies)
    folder, times = folders.most_common(1)[0]
    if times > 1:
        raise UserError(f"compare: each study must be given once, but {folder} was {times} times")
    first = studies[0]
    facts: dict[str, list[str]] = {
        "metric.name": [study.metric for study in studies],
        "metric.goal": [study.goal for study in studies],
        "metric.mode": [study.mode for study in studies],
        "task.data": [_data(study) for study in studies],
    }
    for key, values in facts.items():
        for study, value in zip(studies, values, strict=True):
            if value != values[0]:
                raise UserError(
                    f"compare: {key}: all studies must have the same, but {first.name} has "
                    f"{values[0]} and {study.name} has {value}"
                )


def _data(study: StudyRecord) -> str:
    """Returns the names of a study's data sets."""
    file = _file(study)
    tasks = [file.get("task"), *(file.get("tasks") or ())]
    found = [task.get("data") for task in tasks if isinstance(task, dict)]
    names = [data.get("name", data) if isinstance(data, dict) else data for data in found]
    return ", ".join(dict.fromkeys(str(name) for name in names if name is not None))


def _names(studies: Sequence[StudyRecord]) -> list[str]:
    times = Counter(study.name for study in studies)
    return [
        f"{study.name} ({study.folder.resolve().parent})" if times[study.name] > 1 else study.name
        for study in studies
    ]


def _file(study: StudyRecord) -> dict[str, Any]:
    loaded = YAML(typ="safe", pure=True).load(study.study_file)
    return loaded if isinstance(loaded, dict) else {}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the leaves of a study file with their keys, short lists as one."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            if path or key not in _UNCOMPARED:
                yield from _flat(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for number, part in enumerate(value):
            yield from _flat(part, f"{path}.{number}")
    elif isinstance(value, list):
        yield path, ", ".join(str(part) for part in value)
    else:
        yield path, str(value)


def _compared(
    values: Mapping[str, Mapping[int, float]], goal: Goal
) -> tuple[MethodComparison, ...]:
    """Returns the pairs that have a seed in common, Holm-adjusted for all of them."""
    pairs = [
        compare_methods({name: dict(values[name].items()) for name in (first, second)}, goal)[0]
        for first, second in combinations(values, 2)
        if values[first].keys() & values[second].keys()
    ]
    adjusted = holm([pair.p for pair in pairs]) if pairs else []
    return tuple(
        replace(pair, p_adjusted=p, verdict=pair.verdict if p <= 1.0 - CONFIDENCE else NOISE)
        for pair, p in zip(pairs, adjusted, strict=True)
    )
