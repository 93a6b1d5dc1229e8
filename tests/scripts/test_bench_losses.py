import re

import bench_losses
import pytest
import torch
from plain import FORMS


def test_a_row_for_each_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_losses.py", "--method", "kd"])
    for constant in ("SECONDS_A_CASE", "SECONDS_A_TURN"):
        monkeypatch.setattr(bench_losses, constant, 0.0)
    threads = torch.get_num_threads()
    bench_losses.main()
    torch.set_num_threads(threads)
    head, rule, *rows = capsys.readouterr().out.splitlines()
    (form,) = [form for form in FORMS if form.method == "kd"]
    assert [re.match(r"\| kd \| C=(\d+) ", row)[1] for row in rows] == [  # type: ignore[index]
        str(width) for width in form.widths
    ]
    assert {line.count("|") for line in (head, rule, *rows)} == {10}


def test_saved_bytes_count_each_storage_once() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    # The square saves x, and so does the product, whose other factor is a view of it.
    assert bench_losses.saved_bytes(lambda: (x.square() * x.view(4, 8)).sum()) == 2 * x.nbytes


def test_views_are_no_operators() -> None:
    x = torch.randn(4, 8)
    assert bench_losses.operators(lambda: x.T.reshape(2, 16).unsqueeze(0)) == 1
    assert bench_losses.operators(lambda: x.exp().view(-1).sum()) == 2
