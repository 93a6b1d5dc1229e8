"""The report in a real browser: Chromium opens the file, and a probe in the page looks around."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdscale.analysis import Links, write_report
from kdscale.records import StudyRecord

from .studies import simulate, usual

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

WATCH = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("securitypolicyviolation", (event) => problems.push(event.blockedURI));
for (const level of ["error", "warn"]) {
  console[level] = (...parts) => problems.push(parts.join(" "));
}
window.saved = [];
HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };
</script>"""

PROBE = """<script>
const marks = ".trace path, .heatmaplayer image, canvas";
const drawn = () => Object.fromEntries([...document.querySelectorAll(".plot")].map(
  (plot) => [plot.id, plot.querySelectorAll(marks).length]));
const column = (table, index) => [...table.tBodies[0].rows].map(
  (row) => row.cells[index].dataset.key ?? row.cells[index].textContent);
setTimeout(() => {
  const found = { drawn: drawn(), picked: {}, sorted: {} };
  for (const select of document.querySelectorAll("select")) {
    for (const option of [...select.options].reverse()) {
      select.value = option.value;
      select.dispatchEvent(new Event("change"));
      const id = select.id.replace("pick-", "plot-");
      found.picked[`${select.id} ${option.value}`] = drawn()[id];
    }
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    const name = table.parentElement.ariaLabel;
    found.sorted[name] = [...table.tHead.rows[0].cells].map((head, index) => {
      head.querySelector("button").click();
      const up = column(table, index);
      head.querySelector("button").click();
      return [up, column(table, index), head.ariaSort];
    });
  });
  document.querySelectorAll("button[data-save]").forEach((button) => button.click());
  found.saved = saved;
  found.links = [...document.querySelectorAll("a")].map((a) => [a.textContent, a.href]);
  found.problems = problems;
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = JSON.stringify(found);
  document.body.append(place);
}, 1500);
</script>"""

KEPT = """<script>
sessionStorage.setItem("kdscale tiny · kdscale report", JSON.stringify(
  { x: 0, y: 700, picks: { "pick-curves": "train_loss" }, sorts: { 0: [1, "descending"] } }));
</script>"""

RETURNED = """<script>
addEventListener("load", () => {
  const head = document.querySelector("table.sortable").tHead.rows[0].cells[1];
  const found = [scrollY, document.getElementById("pick-curves").value, head.ariaSort];
  scrollTo(0, 300);
  dispatchEvent(new Event("pagehide"));
  found.push(JSON.parse(sessionStorage.getItem("kdscale tiny · kdscale report")));
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = JSON.stringify(found);
  document.body.append(place);
});
</script>"""

Probe = Callable[..., dict[str, Any]]


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    """Returns what opens a study's report and says what is there."""

    def opened(study: StudyRecord, *options: str, links: Links | None = None) -> dict[str, Any]:
        path = write_report(study, tmp_path, links=links).html
        text = path.read_text(encoding="utf-8")
        text = text.replace("<title>", f"{WATCH}<title>", 1)
        path.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
        dom = chromium("--dump-dom", "--virtual-time-budget=10000", *options, path.as_uri())
        found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
        assert found is not None
        seen: dict[str, Any] = json.loads(html.unescape(found.group(1)))
        return seen

    return opened


def chromium(*arguments: str) -> str:
    assert CHROMIUM is not None
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,3000"]
    done = subprocess.run(
        [CHROMIUM, *fixed, *arguments], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


def numbers(texts: list[str]) -> list[float]:
    return [float(text) for text in texts if text not in ("", "–")]


def test_everything_is_drawn_and_works(probe: Probe) -> None:
    seen = probe(simulate(6, 3, design="oat", failures=True), links=None)
    assert seen["problems"] == []
    assert len(seen["drawn"]) >= 10
    assert all(seen["drawn"].values()), seen["drawn"]
    assert len(seen["picked"]) >= 12
    assert all(seen["picked"].values()), seen["picked"]
    assert {"configurations.tex", "trials.csv", "sensitivity_alpha.md"} <= set(seen["saved"])
    assert len(seen["sorted"]) == 5
    for heads in seen["sorted"].values():
        for up, down, direction in heads:
            assert sorted(up) == sorted(down)
            assert direction == "descending"
    up, down, _ = seen["sorted"]["configurations by rank"][1]  # the mean
    assert numbers(up) == sorted(numbers(up))
    assert numbers(down) == sorted(numbers(down), reverse=True)


def test_a_study_with_a_final_evaluation_and_links_in_the_dark(probe: Probe) -> None:
    pages = {"c001-s0": "http://127.0.0.1:5000/#/experiments/1/runs/0a"}
    dark = "--blink-settings=preferredColorScheme=0"
    seen = probe(usual(), dark, links=Links(pages, "While it runs."))
    assert seen["problems"] == []
    assert set(seen["drawn"]) == {"plot-parallel", "plot-curves", "plot-budget", "plot-compute"}
    assert all(seen["drawn"].values())
    assert seen["links"] == [["c001-s0", "http://127.0.0.1:5000/#/experiments/1/runs/0a"]]


def test_a_study_that_has_hardly_begun(probe: Probe) -> None:
    seen = probe(simulate(1, 1, controls=False))
    assert seen["problems"] == []
    assert all(seen["drawn"].values())


def test_a_page_that_loads_itself_again_stays_as_its_reader_left_it(tmp_path: Path) -> None:
    path = write_report(usual(), tmp_path, refresh_seconds=86_400.0).html
    text = path.read_text(encoding="utf-8").replace("<title>", f"{KEPT}<title>", 1)
    path.write_text(text.replace("</body>", f"{RETURNED}</body>"), encoding="utf-8")
    small = "--window-size=1280,800"
    dom = chromium("--dump-dom", "--virtual-time-budget=5000", small, path.as_uri())
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    y, picked, sorted_by, kept = json.loads(html.unescape(found.group(1)))
    assert (y, picked, sorted_by) == (700, "train_loss", "descending")
    assert kept["y"] == 300
    assert kept["picks"]["pick-curves"] == "train_loss"
    assert kept["sorts"] == {"0": [1, "descending"]}


def test_it_prints(tmp_path: Path) -> None:
    path = write_report(usual(), tmp_path).html
    pdf = tmp_path / "report.pdf"
    chromium("--virtual-time-budget=8000", f"--print-to-pdf={pdf}", path.as_uri())
    assert pdf.read_bytes().startswith(b"%PDF")
