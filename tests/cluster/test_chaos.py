"""A few kills that a study must come through; scripts/chaos.py does as many as are asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chaos_lib.study import write_study
from chaos_lib.watch import Written, repeated_after, same_content
from testbed_lib.hosts import why_not_here

from kdscale.search import load_study
from kdscale.training._checkpoint import save_atomically

SCRIPT = Path(__file__).parents[2] / "scripts" / "chaos.py"


def written(folder: Path, *rows: tuple[str, float, int, float]) -> list[Written]:
    """Returns checkpoints: the trial, when, the epoch, and a weight."""
    found = []
    for number, (trial, at, epoch, weight) in enumerate(rows):
        path = folder / f"{number}.pt"
        content = {"epoch": epoch, "seconds": at, "step": {"w": torch.tensor([weight])}}
        save_atomically(content, path)
        found.append(Written(trial, at, path))
    return found


def test_what_is_trained_again_is_counted_for_the_kill_before(tmp_path: Path) -> None:
    rows = [("a", 1.0, 1, 0.5), ("b", 1.5, 1, 0.5), ("a", 3.0, 1, 0.5), ("b", 3.5, 2, 0.5)]
    rows += [("a", 5.0, 1, 0.5), ("a", 5.5, 2, 0.1), ("a", 6.0, 2, 0.2)]
    first, second = repeated_after(written(tmp_path, *rows), [2.0, 4.0])
    assert (first.epochs, first.most, first.same) == (1, 1, True)
    assert (second.epochs, second.most, second.same) == (2, 2, False)


def test_content_is_the_same_to_the_last_bit() -> None:
    a = {"x": [torch.tensor([1.0]), 2], "y": "z"}
    assert same_content(a, {"x": [torch.tensor([1.0]), 2], "y": "z"})
    assert not same_content(a, {"x": [torch.tensor([1.0 + 2e-7]), 2], "y": "z"})
    assert not same_content(a, {"x": [torch.tensor([1.0]), 2.0], "y": "z"})
    assert not same_content(a, {"x": [torch.tensor([1.0])], "y": "z"})


@pytest.mark.parametrize(("kills", "trials"), [(1, 4), (20, 72)])
def test_the_study_is_one_that_kdscale_takes(tmp_path: Path, kills: int, trials: int) -> None:
    path = write_study(tmp_path, kills=kills, workers=2, tracking={"mlflow": False})
    study = load_study(path)
    assert study.resources.placement == "spread"
    assert study.budget.trials == trials


def test_unknown_kinds_are_refused() -> None:
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--kinds", "driver,cat"], capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "must be of driver, worker, " in ran.stderr
    assert "but got cat" in ran.stderr


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_study_comes_through_kills_as_if_left_alone() -> None:
    if why := why_not_here():
        pytest.skip(why)
    words = ["--seed", "1", "--kills", "4", "--kinds", "driver,worker,node,tear"]
    ran = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| all | 4 | 4 |" in ran.stdout
