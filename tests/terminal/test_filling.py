from __future__ import annotations

import io

from rich.console import Console

from kdscale.search import Filled
from kdscale.terminal import show_filling

END = Filled(pairs=500, done=500, kept=450, folders=1)


def shown(terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    progress = iter([*(Filled(500, done, done, 1) for done in range(0, 500, 10)), END])
    assert show_filling(progress, console) == END
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_tenth() -> None:
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 10
    assert lines[0] == "teacher cache: 50 of 500 pairs"
    assert lines[-1] == "teacher cache: 500 of 500 pairs"


def test_on_a_terminal_there_is_a_bar() -> None:
    assert "500/500" in shown(terminal=True)


def test_nothing_to_fill_is_shown_too() -> None:
    console = Console(file=io.StringIO())
    assert show_filling(iter([]), console).pairs == 0
