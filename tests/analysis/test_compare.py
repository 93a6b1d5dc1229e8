"""Several studies side by side."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from kdscale.analysis import (
    StudyComparison,
    comparison_headline,
    comparison_markdown,
    write_comparison,
)
from kdscale.analysis._compare_page import comparison_page
from kdscale.analysis.statistics import compare_methods
from kdscale.errors import UserError
from kdscale.records import FinalEvaluation, FinalScores, StudyRecord

from .studies import simulate, study, usual

FILE = """\
name: {name}
task:
  data: {{name: {data}, train_images: {images}}}
objective:
  methods:
    - {{method: {method}}}
budget: {{epochs: 12, trials: 60}}
seeds: [0, 1, 2]
storage: {{folder: {name}s}}
"""


def searched(name: str, rng: int, seeds: int = 5, **how: object) -> StudyRecord:
    facts = {"data": "icons100", "images": 3200, "method": name} | how
    return replace(
        simulate(8, seeds, rng=rng),
        name=name,
        folder=Path("studies") / name,
        study_file=FILE.format(name=name, **facts),
    )


def with_test(record: StudyRecord, shift: float, images: int = 1500) -> StudyRecord:
    best = StudyComparison([record, searched("other", 9)]).findings[record.name].best
    assert best is not None
    scores = FinalScores("distilled student", {s: 70 + shift + 0.1 * s for s in best.values})
    return replace(record, final=FinalEvaluation(best.number, (scores,), 1, images))


def text_of(comparison: StudyComparison) -> dict[str, str]:
    return {one.label: one.text for one in comparison_headline(comparison)}


@pytest.fixture(scope="module")
def pair() -> StudyComparison:
    return StudyComparison([searched("ldrld", 0), searched("dkd", 1)])


def test_it_says_who_is_ahead_and_that_it_may_be_luck(pair: StudyComparison) -> None:
    said = text_of(pair)
    assert said["Question"].startswith("Which of ldrld and dkd gives the student the highest")
    first, second = pair.ranked
    assert said["Answer"].index(first) < said["Answer"].index(second)
    assert "The test set does not compare" in said["How sure"]
    assert "chosen on these same numbers" in said["How sure"]
    assert "complete trials each" in said["Equal budget"]
    assert "ldrld 45 trials" in said["Cost"]


def test_the_statistics_are_those_of_the_package(pair: StudyComparison) -> None:
    values = {name: dict(pair.findings[name].best.values.items()) for name in pair.ranked}  # type: ignore[union-attr]
    assert pair.validation == compare_methods(values, "maximize")  # type: ignore[arg-type]
    [gap] = pair.gaps
    assert gap.gap.budgets[-1] == 40.0


def test_tested_students_are_compared_on_the_test_set() -> None:
    both = StudyComparison([with_test(searched("a", 0), 1.0), with_test(searched("b", 1), 0.0)])
    [test] = both.test
    sign = 1.0 if test.first == "a" else -1.0
    assert test.difference.mean == pytest.approx(sign)
    assert both.untested == ()
    assert "On the test set" in text_of(both)["How sure"]
    # Unlike test sets pair nothing.
    apart = StudyComparison([with_test(searched("a", 0), 1.0), with_test(searched("b", 1), 0.0, 9)])
    assert apart.test == ()
    assert len(apart.untested) == 2


def test_three_studies_are_adjusted_for_three_pairs() -> None:
    three = StudyComparison([searched(name, rng) for rng, name in enumerate(("a", "b", "c"))])
    assert len(three.validation) == len(three.gaps) == 3
    assert all(pair.p <= pair.p_adjusted for pair in three.validation)
    smallest = min(three.validation, key=lambda pair: pair.p)
    assert smallest.p_adjusted == pytest.approx(min(1.0, 3 * smallest.p))


def test_seeds_that_differ_pair_nothing() -> None:
    other = searched("b", 1)
    moved = tuple(replace(trial, seed=trial.seed + 100) for trial in other.trials)
    apart = StudyComparison([searched("a", 0), replace(other, trials=moved)])
    assert apart.validation == ()
    assert [set(pair) for pair in apart.unpaired] == [{"a", "b"}]
    assert "have no seed in common" in text_of(apart)["How sure"]
    assert comparison_page(apart)


def test_a_smaller_loss_is_better() -> None:
    def minimised(record: StudyRecord) -> StudyRecord:
        return replace(record, goal="minimize")

    up = StudyComparison([searched("a", 0), searched("b", 1)])
    down = StudyComparison([minimised(searched("a", 0)), minimised(searched("b", 1))])
    assert "lowest" in text_of(down)["Question"]
    means = {name: down.findings[name].best.estimate.mean for name in down.ranked}  # type: ignore[union-attr]
    assert means[down.ranked[0]] <= means[down.ranked[1]]
    assert up.gaps
    assert down.gaps


def test_a_study_without_a_finished_trial_is_named() -> None:
    bare = replace(searched("b", 1), trials=(), controls=())
    said = text_of(StudyComparison([searched("a", 0), bare]))
    assert "b has no configuration trained to the last epoch" in said["Answer"]
    empty = [study(name=name, folder=Path(name)) for name in "ab"]
    assert text_of(StudyComparison(empty))["Answer"].startswith("None yet")
    assert comparison_page(StudyComparison(empty))


def test_it_shows_what_differs_between_the_files(pair: StudyComparison) -> None:
    assert pair.settings == {"objective.methods.0.method": ("ldrld", "dkd")}
    more = StudyComparison([searched("a", 0, method="kd"), searched("b", 1, method="kd", images=9)])
    assert more.settings == {"task.data.train_images": ("3200", "9")}


def test_studies_of_one_name_are_told_apart_by_their_folder() -> None:
    same = [replace(searched("a", rng), folder=Path(f"/x/{rng}/a")) for rng in (0, 1)]
    assert list(StudyComparison(same).studies) == ["a (/x/0)", "a (/x/1)"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "val_loss"}, "metric.name: all studies must have the same, but a has"),
        ({"goal": "minimize"}, "metric.goal: .* a has maximize and b has minimize"),
        ({"mode": "best"}, "metric.mode: .* a has last and b has best"),
        (
            {"study_file": FILE.format(name="b", data="cifar100", images=1, method="kd")},
            "task.data: .* a has icons100 and b has cifar100",
        ),
        ({"folder": Path("studies/a")}, "each study must be given once, but .* was 2 times"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        StudyComparison([searched("a", 0), replace(searched("b", 1), **change)])  # type: ignore[arg-type]


def test_one_study_is_no_comparison() -> None:
    with pytest.raises(UserError, match="two studies or more, but got 1"):
        StudyComparison([searched("a", 0)])


def test_the_files(pair: StudyComparison, tmp_path: Path) -> None:
    paths = write_comparison(pair, tmp_path / "out")
    page = paths.html.read_text(encoding="utf-8")
    assert page.count("plotly") > 1
    assert "<h2>At equal search budget</h2>" in page
    assert paths.md.read_text(encoding="utf-8") == comparison_markdown(pair)
    assert "## Studies" in comparison_markdown(pair)
    assert "## Studies" not in comparison_markdown(pair, tables=False)
    [table] = [path for path in paths.tables if path.name == "studies.csv"]
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [row["study"] for row in rows] == list(pair.ranked)
    assert not list((tmp_path / "out").rglob("*.part"))


def test_names_are_escaped() -> None:
    evil = replace(usual(), name="<b>&", folder=Path("x"))
    page = comparison_page(StudyComparison([evil, usual()]))
    assert "<h1>&lt;b&gt;&amp;" in page
    assert "<b>&" not in page.split("</main>")[0]
