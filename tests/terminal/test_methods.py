from __future__ import annotations

from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from kdscale.losses import METHODS, Hyperparameter
from kdscale.terminal import methods_table


def text(width: int) -> str:
    file = StringIO()
    Console(file=file, width=width).print(methods_table(METHODS))
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_width_holds_every_name_whole(width: int) -> None:
    shown = text(width)
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    words = shown.split()
    for method in METHODS.values():
        assert method.name in words
        assert set(method.source.split()) <= set(words)
        for hyperparameter in method.hyperparameters:
            assert hyperparameter.name in words
            assert str(hyperparameter.default) in words


def test_a_wide_table_has_one_line_a_hyperparameter() -> None:
    lines = text(300).splitlines()
    for method in METHODS.values():
        for one in method.hyperparameters:
            line = next(line for line in lines if one.name in line.split() and one.help in line)
            assert str(one.default) in line.split()
            for choice in one.choices:
                assert choice in line


def test_what_papers_search_is_shown() -> None:
    searched = [
        one
        for method in METHODS.values()
        for one in method.hyperparameters
        if isinstance(one, Hyperparameter) and one.search
    ]
    assert text(300).count("papers search") == len(searched) > 0
