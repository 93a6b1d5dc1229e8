from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from kdscale.analysis import Links, headline, markdown, write_report
from kdscale.analysis._page import page
from kdscale.records import AttemptRecord, StudyRecord, TrialRecord

from .studies import simulate, study, trial, usual

VOID = {"meta", "link", "br", "circle", "line"}


class Reader(HTMLParser):
    """Reads a page's text and references, and checks that its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.data = ""
        self.scripts = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.references += [str(values[name]) for name in ("src", "href") if name in values]
        if tag not in VOID:
            self.open.append(tag)
        self.scripts += tag == "script"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            if data.startswith("{"):
                self.data = data
        elif "style" not in self.open:
            self.text.append(data)


def text_of(record: StudyRecord) -> str:
    return " ".join(Reader(page(record)).text)


def test_report_writes_its_files_and_leaves_no_part(tmp_path: Path) -> None:
    paths = write_report(usual(), tmp_path / "new" / "folder")
    assert sorted(path.name for path in paths.html.parent.iterdir()) == [
        *("report-tables", "report.csv", "report.html", "report.md")
    ]
    assert sorted(paths.tables) == sorted((paths.html.parent / "report-tables").iterdir())
    assert {path.name for path in paths.tables if path.suffix == ".tex"} == {
        *("compute.tex", "configurations.tex", "differences.tex", "test_set.tex", "trials.tex")
    }
    assert paths.md.read_text(encoding="utf-8") == markdown(usual())
    before = paths.html.read_bytes()
    write_report(usual(), paths.html.parent)
    assert paths.html.read_bytes() == before


def test_page_stands_alone() -> None:
    text = page(usual())
    reader = Reader(text)
    assert reader.references == ["data:,"]
    assert text.count(get_plotlyjs()) == 1
    assert "default-src 'none'" in text
    data = json.loads(reader.data)
    assert set(data["figures"]) == {"curves", "parallel", "budget", "compute"}
    assert {"configurations.tex", "test_set.md", "trials.csv"} <= set(data["files"])
    assert data["refresh"] == 0
    assert "prefers-color-scheme: dark" in text


def test_page_without_plots_carries_no_plotly() -> None:
    assert len(page(study())) < 50_000


def test_page_says_what_was_found() -> None:
    text = text_of(usual())
    assert "4 configurations under seeds 0 and 1" in text
    assert "Configuration c001 (alpha = 0.5, depth = 5) has the best mean" in text
    assert "72.25% (95% interval 69.07 to 75.43, n = 2)" in text
    assert (
        "Its difference to the 2 other configurations that trained to the last epoch is not "
        "distinguishable from noise." in text
    )
    assert "it takes about 3 paired seeds" in text
    assert "Importances, interactions and response surface: they need 8 configurations" in text
    assert "2.95 points above the undistilled one" in text
    assert "better, beyond seed noise" in text
    assert "The test set was read once. 1,500 test images." in text
    assert "10 trials (2 of them undistilled), 32 epochs, 48.0 s of training." in text
    assert "Rungs stopped 2 trials early." in text
    assert "1 trial failed: diverged at epoch 1 (ldrld is not finite)." in text
    assert "kdscale sweep tiny.yaml" in text


def test_a_chosen_best_claims_nothing_on_validation() -> None:
    better = [trial(n, n % 2, n // 2, 75.0 + n / 10) for n in range(6)]
    controls = [trial(n, None, n, 70.0 + n / 8) for n in range(3)]
    chosen = {s.label: s.text for s in headline(study(better, controls))}["How sure"]
    assert "only the test set can tell" in chosen
    assert "better" not in chosen
    alone = [one for one in better if one.configuration == 0]
    assert "better, beyond seed noise" in text_of(study(alone, controls))


def test_one_seed_has_no_interval_and_no_claim() -> None:
    record = study([trial(0, 0, 0, 70.0)], [trial(0, None, 0, 60.0)], seeds=(0,))
    text = text_of(record)
    assert "70.00% (n = 1: no interval)" in text
    assert "not distinguishable from noise (n = 1: no interval)" in text
    assert "The test set has not been read." in text


def test_no_controls_and_no_finished_trial_are_said() -> None:
    assert "no undistilled student" in text_of(study([trial(0, 0, 0, 70.0)]))
    early = text_of(study([trial(0, 0, 0, None, "waiting"), trial(1, 1, 0, 3.0, "running")]))
    assert "Of 2 trials, 1 running and 1 waiting" in early
    assert "no trial has trained to the last epoch" in early


def test_a_later_best_than_the_evaluated_one_is_said() -> None:
    final = usual().final
    assert final is not None
    text = text_of(replace(usual(), final=replace(final, configuration=0, reads=2)))
    assert "It was read for c000; by now the best configuration is c001." in text
    assert "has been read 2 times" in text


def test_remarks_on_the_training_are_in_every_report() -> None:
    remarked = replace(usual(), remarks=("It was <b>other</b>.", "And so on."))
    assert "It was <b>other</b>. And so on." in Reader(page(remarked)).data or (
        "It was &lt;b&gt;other&lt;/b&gt;. And so on." in page(remarked)
    )
    assert "And so on." in markdown(remarked)
    assert "And so on." not in markdown(usual())


def test_smaller_is_better_when_minimized() -> None:
    trials = [trial(0, 0, 0, 0.5), trial(1, 1, 0, 0.25)]
    text = text_of(study(trials, metric="val_loss", goal="minimize"))
    assert "the lowest validation loss" in text
    assert "Configuration c001 has the best mean validation loss: 0.2500" in text


def test_everything_is_escaped() -> None:
    evil = "</script><script>alert(1)</script><b>&amp;"
    record = study(
        [
            trial(0, 0, 0, None, "failed", {evil: evil}, evil),
            trial(1, 1, 0, 5.0, "done", {evil: 1}),
        ],
        name=evil,
        parameters=(evil,),
        study_file=evil,
        versions={evil: evil},
        commit=evil,
        metric=evil,
    )
    reader = Reader(page(record))
    assert reader.scripts == 3
    assert "<script>alert" not in page(record).replace(get_plotlyjs(), "")
    assert "".join(reader.text).count(evil) >= 8


def test_report_of_a_thousand_trials_stays_small() -> None:
    trials = [
        trial(n, n // 2, n % 2, 60.0 + n % 97 / 10, "done" if n % 3 else "pruned", {"alpha": n + 1})
        for n in range(1000)
    ]
    text = page(study(trials, parameters=("alpha",)))
    assert text.count("<tr>") > 1000 + 500
    assert len(text) - len(get_plotlyjs()) < 2_500_000


def test_five_sentences_when_all_went_well() -> None:
    told = headline(simulate(6, 4, design="oat"))
    assert [one.label for one in told] == ["Question", "Answer", "How sure", "Cost", "To settle"]
    assert "No trial failed." in told[3].text


def test_one_seed_asks_for_more() -> None:
    told = {one.label: one.text for one in headline(simulate(4, 1))}
    assert "is not distinguishable from noise" in told["Answer"]
    assert told["To settle"].startswith("More seeds: nothing here shows how far values move")


def test_the_best_one_far_ahead_needs_nothing_more() -> None:
    values = {0: (70.0, 70.4, 70.2), 1: (75.1, 75.3, 75.2), 2: (70.1, 70.2, 70.4)}
    trials = [
        trial(3 * number + seed, number, seed, value, parameters={"alpha": number})
        for number, row in values.items()
        for seed, value in enumerate(row)
    ]
    told = {one.label: one.text for one in headline(study(trials, parameters=("alpha",)))}
    assert "It is ahead of the 2 other configurations" in told["Answer"]
    assert told["To settle"] == "The choice among these configurations needs nothing more."


def test_a_running_study_is_left_to_end() -> None:
    told = {one.label: one.text for one in headline(study([trial(0, 0, 0, 3.0, "running")]))}
    assert told["To settle"] == "Let the sweep end: the command that started it continues it."


def test_the_page_of_a_design_has_curves_and_importances() -> None:
    text = page(simulate(6, 3, design="oat"))
    reader = Reader(text)
    figures = json.loads(reader.data)["figures"]
    assert {"line-0", "line-1", "line-2", "importances", "interactions", "surface"} <= set(figures)
    assert "By the total Sobol index there is" in " ".join(reader.text)
    assert 'id="left-out"' not in text


def test_attempts_that_were_cut_short_are_told() -> None:
    lost = AttemptRecord(1, "2026-11-21T10:00:00+00:00", 0, ("gpu-3",), epoch=2, reason="node lost")
    done = AttemptRecord(2, "2026-11-21T11:00:00+00:00", 2, ("gpu-1",), epoch=4, reason="done")
    first, *others = usual().trials
    record = replace(usual(), trials=(replace(first, attempts=(lost, done)), *others))
    text = text_of(record)
    assert "Cut short and tried again: node lost." in text
    assert "node lost at epoch 2" in text
    assert "gpu-1 and gpu-3" in text
    assert "tried again" not in text_of(usual())


def test_of_noise_alone_no_effect_is_claimed() -> None:
    draw = np.random.default_rng(1)
    trials = [
        trial(n, n, 0, 70.0 + draw.normal(), parameters={"alpha": draw.random(), "depth": n % 3})
        for n in range(16)
    ]
    text = " ".join(text_of(study(trials)).split())
    assert "By the total Sobol index there is no detectable effect of any hyperparameter" in text


def test_links_lead_to_mlflow_and_the_page_says_how() -> None:
    links = Links({"c000-s0": "http://127.0.0.1:5000/#/experiments/1/runs/ab"}, "While it runs.")
    reader = Reader(page(usual(), links))
    assert reader.references == ["data:,", "http://127.0.0.1:5000/#/experiments/1/runs/ab"]
    assert "While it runs." in " ".join(reader.text)


def test_a_watched_page_loads_itself_again(tmp_path: Path) -> None:
    paths = write_report(usual(), tmp_path, refresh_seconds=7.0)
    assert json.loads(Reader(paths.html.read_text(encoding="utf-8")).data)["refresh"] == 7.0


values = st.one_of(st.none(), st.floats(0.0, 100.0), st.just(float("nan")))
states = st.sampled_from(["waiting", "running", "done", "pruned", "failed"])
parameters = st.one_of(st.floats(-5.0, 5000.0), st.integers(0, 9), st.booleans(), st.text())


@st.composite
def trials(draw: st.DrawFn) -> list[TrialRecord]:
    keys = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), unique=True, max_size=12))
    points = {number: {"alpha": draw(parameters)} for number, _ in keys}
    return [
        trial(index, number, seed, draw(values), draw(states), points[number], draw(st.text()))
        for index, (number, seed) in enumerate(keys)
    ]


@settings(max_examples=60, deadline=None)
@given(
    trials(),
    st.lists(st.tuples(values, states), max_size=3),
    st.sampled_from(["maximize", "minimize"]),
    st.booleans(),
)
def test_any_study_gives_a_sound_page(
    tried: list[TrialRecord], controls: list[tuple[float | None, str]], goal: str, finished: bool
) -> None:
    record = study(
        tried,
        [trial(n, None, n, value, state) for n, (value, state) in enumerate(controls)],  # type: ignore[arg-type]
        goal=goal,
        final=usual().final if finished else None,
    )
    text = page(record)
    reader = Reader(text)
    json.loads(reader.data or "{}")
    assert markdown(record).startswith("# tiny\n")


def test_imports_neither_ray_nor_mlflow_nor_search() -> None:
    code = "import sys, kdscale.analysis; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"ray", "mlflow", "kdscale.search"} & {*done.stdout.split()}
