from __future__ import annotations

import sys

import bench_executors
import pytest


def test_every_executor_has_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--students 2 --student resnet8 --batch-size 4 --steps 1 --rounds 1"
    monkeypatch.setattr(sys, "argv", ["bench_executors.py", *small.split()])
    bench_executors.main()
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["loop", "grouped", "vmap"]
    assert all("ms a step" in line for line in lines)
