from __future__ import annotations

from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from kdscale.losses import METHODS, NOT_PUBLIC, Method, common_hyperparameters
from kdscale.terminal import method_view, methods_table, not_public_table


def text(shown: RenderableType, width: int) -> str:
    file = StringIO()
    Console(file=file, width=width).print(shown)
    return file.getvalue()


each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_list_holds_every_name_whole(width: int) -> None:
    shown = text(methods_table(METHODS.values()), width)
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    assert set(METHODS) <= set(shown.split())


def test_a_wide_list_has_one_line_a_method() -> None:
    lines = text(methods_table(METHODS.values()), 300).splitlines()
    assert len(lines) == len(METHODS) + 1
    for method, line in zip(METHODS.values(), lines[1:], strict=True):
        assert line.split()[0] == method.name
        assert method.title in line
        assert line.rstrip().endswith(", ".join(method.reads))


@each_method
def test_a_method_is_shown_with_every_hyperparameter(method: Method) -> None:
    narrow = text(method_view(method), 80)
    assert max(cell_len(line) for line in narrow.splitlines()) <= 80
    assert set(method.source.split()) <= set(narrow.split())
    lines = text(method_view(method), 400).splitlines()
    for one in (*method.hyperparameters, *common_hyperparameters(method)):
        line = next(line for line in lines if line.split()[:1] == [one.name])
        default = one.default
        assert (f"{default:g}" if isinstance(default, float) else str(default)) in line
        assert one.help in line
        assert all(choice in line for choice in one.choices)
        assert ("papers search" in line) == (one.search is not None)


def test_what_is_not_public_is_listed_with_the_reason() -> None:
    shown = " ".join(text(not_public_table(NOT_PUBLIC), 2000).split())
    for row in NOT_PUBLIC:
        for part in (row.name, row.known, row.reason):
            assert " ".join(part.split()) in shown
