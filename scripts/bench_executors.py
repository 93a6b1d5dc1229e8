"""Times a cohort's step under each executor: one student after the other, grouped, vmap.

    python scripts/bench_executors.py --students 1 4 9 16 --student resnet8x4 --method ldrld
    python scripts/bench_executors.py --students 1 2 --batch-size 8 --steps 2 --rounds 1  # a CPU

A step is the forward and backward pass of K students, their objectives and their optimisers, on a
batch whose data and teacher pass are done; executors take turns within each round. On a GPU it
also counts the places where a step, its data and teacher pass included, makes the host wait for
the device (torch.cuda.set_sync_debug_mode), and lists them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kdscale.data import Icons100Spec, load_data
from kdscale.errors import UserError
from kdscale.losses import TermConfig
from kdscale.models import create_model
from kdscale.training import Cohort, Group, Member, ModelSpec, RecipeSpec
from kdscale.training._cohort import CohortLoop
from kdscale.training._step import Lesson
from kdscale.training._student import union_of_needs

WARM_UP_STEPS = 3


class Arm:
    """One executor with a cohort of its own.

    Args:
        executor: Its name; ``compiled`` is the loop over compiled students.
        count: Number of students.
        options: The command line.
        folder: For the cohort's files, of which it writes none.
    """

    def __init__(
        self, executor: str, count: int, options: argparse.Namespace, folder: Path
    ) -> None:
        device = torch.device(options.device)
        compiled = executor == "compiled"
        recipe = RecipeSpec(
            batch_size=options.batch_size,
            precision=options.precision,
            channels_last=options.channels_last,
            executor="loop" if compiled else executor,
            compile=options.compile if compiled else False,
        )
        term = TermConfig(options.method, options.method)
        members = tuple(Member(str(n), 1.0, (term,), recipe, folder / str(n)) for n in range(count))
        data = load_data(Icons100Spec(train_images=max(1000, 2 * options.batch_size)))
        teacher = create_model(options.teacher, data.num_classes, seed=0).eval().to(device)
        cohort = Cohort(ModelSpec(model=options.student), members, 0, 10)
        self.loop = CohortLoop(
            cohort, data, teacher.requires_grad_(False), Group(device=device), None
        )
        self.students = self.loop.students
        if not self.students:
            raise UserError(self.loop.refused["0"])
        for student in self.students:
            student.start_epoch()
        self.indices = torch.arange(options.batch_size)
        self.steps = 0
        for _ in range(WARM_UP_STEPS):
            self.lesson = self.prepare()
            self.step()

    def prepare(self) -> Lesson:
        self.steps += 1
        needs = union_of_needs(self.students)
        two_views = any(student.second_view for student in self.students)
        return self.loop._prepare(self.indices, 1, self.steps, needs, two_views)

    def step(self) -> None:
        self.loop.steps.take(self.students, self.lesson)

    def seconds(self, steps: int) -> float:
        wait()
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        wait()
        return (time.perf_counter() - started) / steps

    def waits(self) -> list[str]:
        """Returns where a step makes the host wait for the device."""
        with synchronisations() as found:
            self.lesson = self.prepare()
            self.step()
        return found


@contextmanager
def synchronisations() -> Iterator[list[str]]:
    """Collects the lines that wait for the device while its block runs."""
    found: list[str] = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield found
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found += [f"{w.filename}:{w.lineno}" for w in told if "synchroniz" in str(w.message)]


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bench(count: int, options: argparse.Namespace, folder: Path) -> None:
    arms = {}
    names = ["loop", "grouped", "vmap", *(["compiled"] if options.compile else [])]
    for name in names:
        try:
            arms[name] = Arm(name, count, options, folder)
        except (UserError, torch.OutOfMemoryError) as error:
            print(f"K={count:<3} {name:<9} {str(error).splitlines()[0]}", flush=True)
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.rounds):
        for name, arm in arms.items():
            taken[name].append(arm.seconds(options.steps))
    for name, arm in arms.items():
        middle = statistics.median(taken[name])
        ratios = [a / b for a, b in zip(taken[name], taken["loop"], strict=True)]
        text = (
            f"K={count:<3} {name:<9} {1e3 * middle:9.1f} ms a step {1e3 * middle / count:8.2f} "
            f"a student  {statistics.median(ratios):5.2f}x the loop"
        )
        if torch.cuda.is_available():
            places = arm.waits()
            text += f"  {len(places)} waits {' '.join(sorted(set(places)))}"
        print(text, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--students", type=int, nargs="+", default=[1, 4, 9, 16])
    arguments.add_argument("--student", default="resnet8x4")
    arguments.add_argument("--teacher", default="resnet8")
    arguments.add_argument("--method", default="kd")
    arguments.add_argument("--batch-size", type=int, default=64)
    arguments.add_argument("--steps", type=int, default=10, help="steps a round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments.add_argument("--channels-last", action="store_true")
    arguments.add_argument("--compile", nargs="?", const=True, default=False, help="a mode or none")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = arguments.parse_args()
    print(
        f"{options.student} under {options.teacher}, {options.method}, batch {options.batch_size}, "
        f"{options.precision}, {options.device}; torch {torch.__version__}; "
        f"median of {options.rounds} rounds of {options.steps} steps",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for count in options.students:
            bench(count, options, Path(folder))


if __name__ == "__main__":
    main()
