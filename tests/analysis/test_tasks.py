from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdscale.analysis import TaskStudies, tasks_headline, write_tasks_report
from kdscale.analysis._tasks import TaskContents
from kdscale.analysis._tasks_page import regret_figure
from kdscale.records import StudyRecord

from .studies import study, trial
from .test_browser import CHROMIUM, PROBE, WATCH, chromium

TASKS = ("clean", "noisy", "narrow")


def task_study(name: str, means: list[float], *, sd: float = 0.2, seeds: int = 3) -> StudyRecord:
    draw = np.random.default_rng(len(name))
    trials = [
        trial(
            number * seeds + seed,
            number,
            seed,
            float(mean + draw.normal(0.0, sd)),
            parameters={"alpha": 2.0 * number},
        )
        for number, mean in enumerate(means)
        for seed in range(seeds)
    ]
    return study(trials, name=f"pairs/{name}", parameters=("alpha",), seeds=tuple(range(seeds)))


def pairs(**studies: StudyRecord) -> TaskStudies:
    return TaskStudies("pairs", studies, study_file="name: pairs\n")


@pytest.fixture(scope="module")
def three() -> TaskStudies:
    return pairs(
        clean=task_study("clean", [75.0, 74.0, 70.0]),
        noisy=task_study("noisy", [60.0, 64.0, 65.0]),
        narrow=task_study("narrow", [50.0, 50.2, 49.0]),
    )


def test_the_answer_is_the_setting_with_the_least_worst_case(three: TaskStudies) -> None:
    told = {one.label: one.text for one in tasks_headline(three)}
    assert "each of 3 tasks, clean, noisy and narrow" in told["Question"]
    assert told["Answer"].startswith(
        "Configuration c001 (alpha = 2) has the least worst-case regret"
    )
    assert "(95% interval " in told["Answer"]
    assert "The best of each task alone: c000 on clean, c002 on noisy" in told["How sure"]
    assert told["Cost"].startswith("27 trials, 108 epochs")
    assert "Unfinished" not in told


def test_all_that_are_equally_good_on_a_task_are_named() -> None:
    equal = pairs(
        clean=task_study("clean", [75.0, 74.0, 75.0, 70.0, 69.0], sd=0.0),
        noisy=task_study("noisy", [60.0, 60.0, 60.0, 60.0, 50.0], sd=0.0),
    )
    told = {one.label: one.text for one in tasks_headline(equal)}
    assert told["How sure"].endswith(
        "The best of each task alone: c000 or c002 on clean and 4 configurations that are equal "
        "on noisy."
    )


def test_what_is_not_there_yet_is_said(three: TaskStudies) -> None:
    clean = three.studies["clean"]
    some = replace(clean, trials=(*clean.trials[:-1], replace(clean.trials[-1], state="waiting")))
    told = {
        one.label: one.text
        for one in tasks_headline(TaskStudies("pairs", {"clean": some}, ("noisy",)))
    }
    assert told["Unfinished"].startswith("clean lacks 1 of 9 trials and noisy has not begun")
    assert told["Answer"].startswith("None yet: fewer than two tasks")


def test_tables_of_tasks_regrets_and_means(three: TaskStudies) -> None:
    tables = TaskContents(three).tables
    assert list(tables) == ["tasks", "regret", "means"]
    assert [row[0].text for row in tables["tasks"].rows] == list(TASKS)
    assert next(row[0].link for row in tables["tasks"].rows) == "clean/report.html"
    regret = tables["regret"]
    assert next(row[0].text for row in regret.rows) == "c001"
    titles = [column.title for column in regret.columns]
    for task in TASKS:
        column = [row[titles.index(task)].key for row in regret.rows]
        assert min(key for key in column if isinstance(key, float)) == 0.0
    assert [row[0].text for row in tables["means"].rows] == ["c000", "c001", "c002"]


def test_the_report_is_whole(three: TaskStudies, tmp_path: Path) -> None:
    paths = write_tasks_report(three, tmp_path, refresh_seconds=7.0)
    page = paths.html.read_text()
    for place in ("summary", "tasks", "regret", "means", "provenance"):
        assert f'<section id="{place}">' in page
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    assert found is not None
    data = json.loads(found[1])
    assert data["refresh"] == 7.0
    assert set(data["figures"]) == {"regret"}
    assert {path.name for path in paths.tables} == {
        f"{name}.{ending}"
        for name in ("tasks", "regret", "means")
        for ending in ("csv", "md", "tex")
    }
    rows = list(csv.DictReader(io.StringIO(paths.csv.read_text())))
    assert len(rows) == 27
    assert {row["task"] for row in rows} == set(TASKS)
    text = paths.md.read_text()
    assert text.startswith("# pairs\n")
    assert "## Regret across tasks" in text
    assert not list(tmp_path.rglob("*.part"))


def test_one_task_and_no_trial_are_reported_too(tmp_path: Path) -> None:
    empty = pairs(clean=study(name="pairs/clean"))
    page = write_tasks_report(empty, tmp_path).html.read_text()
    assert '<section id="regret">' not in page


def test_tasks_with_other_hyperparameters_have_no_regret(three: TaskStudies) -> None:
    other = task_study("other", [70.0, 71.0])
    other = replace(
        other, trials=tuple(replace(t, parameters={"depth": t.number}) for t in other.trials)
    )
    contents = TaskContents(pairs(clean=three.studies["clean"], other=other))
    assert contents.regrets is None
    assert list(contents.tables) == ["tasks"]


def test_points_of_the_figure_carry_their_intervals(three: TaskStudies) -> None:
    found = TaskContents(three).regrets
    assert found is not None
    figure = regret_figure(found)
    assert [trace["name"] for trace in figure["data"]] == list(TASKS)
    assert figure["layout"]["xaxis"]["ticktext"][0] == "c001"
    for trace in figure["data"]:
        assert min(trace["y"]) == 0.0
        assert all(part >= 0.0 for part in trace["error_y"]["arrayminus"])
    one_seed = pairs(
        a=task_study("a", [1.0, 2.0], seeds=1), b=task_study("bb", [2.0, 1.0], seeds=1)
    )
    alone = TaskContents(one_seed).regrets
    assert alone is not None
    assert all("error_y" not in trace for trace in regret_figure(alone)["data"])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_works_in_a_browser(three: TaskStudies, tmp_path: Path) -> None:
    path = write_tasks_report(three, tmp_path).html
    text = path.read_text().replace("<title>", f"{WATCH}<title>", 1)
    path.write_text(text.replace("</body>", f"{PROBE}</body>"))
    dom = chromium("--dump-dom", "--virtual-time-budget=10000", path.as_uri())
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    seen = json.loads(html.unescape(found[1]))
    assert seen["problems"] == []
    assert set(seen["drawn"]) == {"plot-regret"}
    assert all(seen["drawn"].values())
    assert set(seen["sorted"]) == {"tasks", "regret by configuration", "means by configuration"}
    assert {"regret.tex", "tasks.csv", "means.md"} <= set(seen["saved"])
