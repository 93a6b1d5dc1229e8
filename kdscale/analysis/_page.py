"""The report as one HTML page that needs no network and no file beside it."""

from __future__ import annotations

from importlib import resources

from plotly.offline import get_plotlyjs

from kdscale.analysis import _html
from kdscale.analysis._contents import Contents, Links
from kdscale.analysis._sections import Page, sections
from kdscale.analysis._sheet import Sheet
from kdscale.records import StudyRecord

# The page states itself that it loads nothing. Plotly compiles its parallel coordinates
# (unsafe-eval) and hands pictures out as blobs.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; worker-src blob:"
)


def page(study: StudyRecord, links: Links | None = None) -> str:
    """Returns the whole page of a study."""
    return page_of(Contents(study, links))


def page_of(contents: Contents, refresh_seconds: float = 0.0) -> str:
    """Returns the whole page.

    Args:
        contents: What goes into it.
        refresh_seconds: Pause after which the page loads itself again; 0 for never.
    """
    made = Page(contents)
    body = "\n".join(sections(made))
    return document(f"{contents.study.name} · kdscale report", body, made, refresh_seconds)


def document(title: str, body: str, sheet: Sheet, refresh_seconds: float = 0.0) -> str:
    """Returns a whole page.

    Args:
        title: Its title, not yet escaped.
        body: HTML of its sections.
        sheet: Their plots and files.
        refresh_seconds: Pause after which the page loads itself again; 0 for never.
    """
    data = {"figures": sheet.figures, "files": sheet.files, "refresh": refresh_seconds}
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{_html.escape(title)}</title>
<style>
{_asset("report.css")}</style>
</head>
<body>
<main>
{body}
</main>
{_html.data_block("report-data", data)}
<script>{get_plotlyjs() if sheet.figures else ""}</script>
<script>
{_asset("report.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return (resources.files("kdscale.analysis") / "assets" / name).read_text(encoding="utf-8")
