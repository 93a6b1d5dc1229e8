"""MLflow's own user interface on a study, in a real browser that has never been there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright import sync_api as playwright

from kdscale.tracking import make_tracker, mlflow_environment, run_links, shared_page

from .server import MlflowServer
from .test_tracker import study, trial

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 120_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


class Shown(NamedTuple):
    """A study on a server: the server's address, and what leads from kdscale to its pages."""

    base: str
    pages: Mapping[str, str]
    together: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Gives a study of four configurations, two seeds each, on a real server."""
    folder = tmp_path_factory.mktemp("server")
    server = MlflowServer(folder)
    trials = [
        replace(
            trial(number, seed, epochs=number + 1),
            parameters={"alpha": 2.0 + number, "depth": 9 - number},
        )
        for number in range(4)
        for seed in (0, 1)
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mlflow_environment().items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        server.start()
        tracker = make_tracker(study(folder / "study", *trials), server.uri)
        tracker.close()
        assert tracker.problem == ""
        pages = run_links(folder / "study", server.uri, "study").pages
        yield Shown(server.uri, pages, shared_page(["study"], server.uri))
    server.kill()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """Gives a page of a new browser; what its scripts raise fails the test."""
    raised: list[str] = []
    with playwright.sync_playwright() as play:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=options)
        opened = browser.new_page(viewport={"width": 1700, "height": 1000})
        opened.set_default_timeout(PATIENCE_MS)
        opened.on("pageerror", lambda error: raised.append(str(error)))
        yield opened
        opened.screenshot(path=tmp_path / "end.png")
        browser.close()
    assert raised == []


def test_a_new_visitor_finds_the_best_trials_first_with_their_hyperparameters(
    shown: Shown, page: Any
) -> None:
    page.goto(f"{shown.base}/#/experiments/1/runs?viewStateShareKey=kdscale")
    names = page.locator("a").filter(has_text=re.compile(r"^c\d+-s\d$"))
    names.first.wait_for()
    best_first = [f"c{number:03d}-s{seed}" for number in (3, 2, 1, 0) for seed in (1, 0)]
    assert names.all_inner_texts() == best_first
    heads = page.get_by_role("columnheader").all_inner_texts()
    assert {"last_val_accuracy", "alpha", "depth"} <= {head.strip() for head in heads}


def test_seeds_of_a_configuration_make_a_group_with_their_mean(shown: Shown, page: Any) -> None:
    page.goto(f"{shown.base}/#/experiments/1/runs?viewStateShareKey=kdscale-configurations")
    means = page.get_by_text(re.compile(r"^6\d \(average\)$"))
    wanted = ["64 (average)", "63 (average)", "62 (average)", "61 (average)"]
    playwright.expect(means).to_have_text(wanted, timeout=PATIENCE_MS)


def test_selected_trials_are_compared_by_parallel_coordinates(shown: Shown, page: Any) -> None:
    page.goto(f"{shown.base}/#/experiments/1/runs?viewStateShareKey=kdscale")
    for name in ("c003-s0", "c001-s0"):
        page.get_by_role("row").filter(has_text=name).get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Compare", exact=True).first.click()
    plot = page.locator(".js-plotly-plot .parcoords")
    plot.wait_for()
    axes = plot.locator(".axis-title").all_text_contents()
    assert axes == ["alpha", "depth", "val_accuracy"]
    assert "Comparing 2 Runs from 1 Experiment" in page.locator("body").inner_text()


def test_links_lead_to_the_pages_on_training(shown: Shown, page: Any) -> None:
    page.goto(shown.pages["c003-s1"])
    page.get_by_text("c003-s1", exact=True).first.wait_for()
    assert page.get_by_text("Model registry").is_visible()
    page.goto(shown.together)
    page.get_by_role("row").filter(has_text="c003-s1").first.wait_for()
    assert page.get_by_text("Model registry").is_visible()
