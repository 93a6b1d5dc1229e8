from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import kdscale
from kdscale.data import Augmentation, epoch_order, normalise
from kdscale.errors import UserError
from kdscale.losses import TermConfig
from kdscale.training import (
    Cohort,
    Group,
    Member,
    ModelSpec,
    RecipeSpec,
    checkpoint_path,
    train_cohort,
)
from kdscale.training import _cohort as loop
from kdscale.training._definition import definition_of
from kdscale.training._student import Lesson, Student

from .tasks import (
    EPOCHS,
    RECIPE,
    TERMS,
    VIT,
    VIT_ARGS,
    Outcome,
    assert_same,
    cohort_of,
    data,
    files_of,
    follow,
    members,
    recipe_with,
    teacher,
    train,
)

NAMES = tuple(TERMS)
TRIPLES = [tuple(NAMES[(start + i) % len(NAMES)] for i in range(3)) for start in range(len(NAMES))]
DROPOUT = ModelSpec(
    model="vit_tiny_patch16_224",
    args=VIT_ARGS | {"drop_rate": 0.2, "proj_drop_rate": 0.2, "drop_path_rate": 0.2},
)


@dataclass
class Trained:
    outcome: Outcome
    files: dict[str, Any]


def train_each(cohort: Cohort) -> dict[str, Trained]:
    outcomes = train(cohort)
    return {m.name: Trained(outcomes[m.name], files_of(m)) for m in cohort.members}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Trains each trial in a cohort of its own."""
    folder = tmp_path_factory.mktemp("alone")
    trained: dict[str, Trained] = {}
    for member in members(folder, *NAMES):
        trained |= train_each(cohort_of((member,)))
    return trained


def test_a_trial_tells_an_epoch_at_a_time_and_leaves_its_files(tmp_path: Path) -> None:
    [member] = members(tmp_path, "two")
    told = [
        reports[0] for reports in train_cohort(cohort_of((member,)), data(), teacher(), Group())
    ]
    assert [len(report.rows) for report in told] == [0, 1, 1, 1]
    assert [report.status for report in told] == ["running"] * EPOCHS + ["done"]
    assert [report.seconds for report in told] == sorted({report.seconds for report in told})
    rows = [row for report in told for row in report.rows]
    names = ["loss", "ce", "soft", "rsd", "accuracy"]
    assert list(rows[0]) == [
        "epoch",
        "lr",
        *(f"train_{n}" for n in names),
        "val_accuracy",
        "val_loss",
    ]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        parts = row["train_ce"] + 0.5 * row["train_soft"] + 0.5 * row["train_rsd"]
        assert row["train_loss"] == pytest.approx(parts, rel=1e-6)
    files = files_of(member)
    assert files["checkpoint.pt"]["history"] == rows
    assert files["checkpoint.pt"]["epoch"] == EPOCHS
    assert files["student.pt"]["about"] == {"trial": "two"}
    assert sorted(path.name for path in tmp_path.rglob("*.pt")) == ["checkpoint.pt", "student.pt"]


@pytest.mark.parametrize("names", [*TRIPLES, NAMES[::-1]], ids="-".join)
def test_numbers_do_not_depend_on_the_company(
    names: tuple[str, ...], alone: dict[str, Trained], tmp_path: Path
) -> None:
    for name, trained in train_each(cohort_of(members(tmp_path, *names))).items():
        assert trained.outcome == alone[name].outcome
        assert trained.outcome.status == "done"
        assert_same(trained.files, alone[name].files)


def test_trials_of_a_seed_start_equal_and_see_the_same_images(tmp_path: Path) -> None:
    # With one step an epoch, the first epoch's cross-entropy is that of the untrained student.
    recipe = recipe_with(batch_size=100)
    names = [name for name in NAMES if name != "simkd"]  # whose student has another end
    trials = members(tmp_path, *names, recipes=dict.fromkeys(names, recipe))
    outcomes = train(cohort_of(trials, epochs=1)).values()
    assert len({outcome.rows[0]["train_ce"] for outcome in outcomes}) == 1
    assert len({outcome.rows[0]["val_loss"] for outcome in outcomes}) == len(names)


def test_batches_are_a_function_of_seed_epoch_and_index(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    step = Student.step

    def spied(self: Student, lesson: Lesson) -> None:
        seen.append((lesson.images.clone(), lesson.target))
        step(self, lesson)

    monkeypatch.setattr(Student, "step", spied)
    train(cohort_of(members(tmp_path, "kd"), seed=6))
    augmentation = Augmentation(data().augmentation, 32)
    expected = []
    for epoch in range(1, EPOCHS + 1):
        for indices in torch.split(epoch_order(100, 6, epoch)[:96], 32):
            views = augmentation.views(6, epoch, indices)
            images = augmentation.apply(data().train.gather(indices), views)
            batch = normalise(images, data().mean, data().std)
            expected.append((batch, data().train.labels[indices]))
    assert_same(seen, expected)


def test_another_seed_gives_other_numbers(alone: dict[str, Trained], tmp_path: Path) -> None:
    other = train_each(cohort_of(members(tmp_path, "kd"), seed=6))["kd"]
    assert other.outcome.rows != alone["kd"].outcome.rows


def with_noise(cohort: Cohort) -> Iterator[Any]:
    """Yields a cohort's progress while others draw from the global random stream."""
    for reports in train_cohort(cohort, data(), teacher(), Group()):
        torch.manual_seed(int(torch.randint(1000, ())) + len(reports))
        torch.rand(7)
        yield reports


def test_dropout_does_not_depend_on_the_company(tmp_path: Path) -> None:
    names = ("kd", "rsd", "undistilled")
    together = members(tmp_path / "together", *names)
    outcomes = train(cohort_of(together, model=DROPOUT))
    for member in together:
        solo = replace(member, folder=tmp_path / "alone" / member.name)
        [outcome] = follow(with_noise(cohort_of((solo,), model=DROPOUT))).values()
        assert outcome == outcomes[member.name]
        assert_same(files_of(solo), files_of(member))
    # The dropout is not idle, so the equality means something.
    [plain] = train(cohort_of(members(tmp_path / "plain", "kd"), model=VIT)).values()
    assert plain.rows[0]["train_loss"] != outcomes["kd"].rows[0]["train_loss"]


def test_dropout_differs_from_step_to_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seeds: list[int] = []
    original = Student.step

    def step(self: Student, lesson: Lesson) -> None:
        original(self, lesson)
        seeds.append(torch.initial_seed())

    monkeypatch.setattr(Student, "step", step)
    train(cohort_of(members(tmp_path, "kd")))
    train(cohort_of(members(tmp_path / "other", "kd"), seed=6))
    assert len(seeds) == len(set(seeds)) == 2 * EPOCHS * 3


def test_a_diverged_member_fails_alone(alone: dict[str, Trained], tmp_path: Path) -> None:
    trials = members(tmp_path, "deep", "wild", "kd", recipes={"wild": recipe_with(lr=1e30)})
    outcomes = train(cohort_of(trials))
    assert outcomes["wild"] == Outcome("failed", "diverged at epoch 1 (ce is not finite)", [])
    assert files_of(trials[1]) == {}
    for name in ("deep", "kd"):
        assert outcomes[name] == alone[name].outcome


@pytest.mark.parametrize(
    ("weight", "lambda_", "part"), [(1e39, 1.0, "loss"), (1.0, 1e39, "rsd"), (1e20, 1e20, "loss")]
)
def test_a_divergence_names_the_part(
    weight: float, lambda_: float, part: str, tmp_path: Path
) -> None:
    # One step an epoch, so that the broken gradient cannot reach the cross-entropy.
    term = TermConfig("rsd", "rsd", weight, {"lambda": lambda_})
    recipe = recipe_with(batch_size=100)
    member = replace(members(tmp_path, "rsd")[0], terms=(term,), recipe=recipe)
    [outcome] = train(cohort_of((member,))).values()
    assert outcome == Outcome("failed", f"diverged at epoch 1 ({part} is not finite)", [])


def test_weights_that_break_in_the_last_step_are_a_divergence(tmp_path: Path) -> None:
    """The epoch's losses are finite here, as each was taken before its step."""
    recipes = {"wild": recipe_with(lr=1e30, batch_size=100), "kd": recipe_with(batch_size=100)}
    trials = members(tmp_path, *recipes, recipes=recipes)
    outcomes = train(cohort_of(trials, epochs=1))
    assert outcomes["wild"] == Outcome("failed", "diverged at epoch 1 (val_loss is not finite)", [])
    assert outcomes["kd"].status == "done"


def test_a_member_that_the_pair_cannot_serve_fails_alone(
    alone: dict[str, Trained], tmp_path: Path
) -> None:
    too_deep = TermConfig("ldrld", "ldrld", 1.0, {"depth": 99})
    first, bad, last = members(tmp_path, "kd", "bad", "two")
    trials = (first, replace(bad, terms=(too_deep,)), last)
    outcomes = train(cohort_of(trials))
    assert outcomes["bad"].status == "failed"
    assert outcomes["bad"].reason == (
        'term "ldrld": ldrld needs at least 2 classes below the student\'s top depth, so classes '
        "must be >= depth + 2 = 101, but got 100 (depth <= 98 would do)"
    )
    assert outcomes["bad"].rows == []
    assert not bad.folder.exists()
    for name in ("kd", "two"):
        assert outcomes[name] == alone[name].outcome


def test_if_no_member_can_be_served_the_loop_ends_at_once(tmp_path: Path) -> None:
    [bad] = members(tmp_path, "bad", recipes={"bad": recipe_with(sync_batchnorm=True)})
    [[report]] = train_cohort(cohort_of((bad,)), data(), teacher(), Group())
    assert (report.status, report.rows) == ("failed", ())
    assert report.reason == "recipe.sync_batchnorm: SyncBatchNorm runs on GPUs only"


def break_second_epoch(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Makes the steps of the trial named ``bad`` raise in the second epoch."""
    step = Student.step

    def broken(self: Student, lesson: Lesson) -> None:
        if self.member.name == "bad" and self.epoch == 1:
            raise error
        step(self, lesson)

    monkeypatch.setattr(Student, "step", broken)


def test_a_member_whose_step_raises_fails_alone(
    alone: dict[str, Trained], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_second_epoch(monkeypatch, RuntimeError("no such thing"))
    outcomes = train(cohort_of(members(tmp_path, "bad", "dkd")))
    assert outcomes["bad"].status == "failed"
    assert outcomes["bad"].reason == "error at epoch 2: RuntimeError: no such thing"
    assert outcomes["bad"].rows == alone["undistilled"].outcome.rows[:1]
    assert outcomes["dkd"] == alone["dkd"].outcome


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("full"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_out_of_memory_ends_the_attempt(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_second_epoch(monkeypatch, error)
    with pytest.raises(type(error)):
        train(cohort_of(members(tmp_path, "bad", "dkd")))


def test_an_undistilled_cohort_needs_no_teacher(alone: dict[str, Trained], tmp_path: Path) -> None:
    cohort = cohort_of(members(tmp_path, "undistilled"))
    [outcome] = follow(train_cohort(cohort, data(), None, Group())).values()
    assert outcome == alone["undistilled"].outcome


def fake_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Makes every epoch's training take so many seconds: the loop reads the clock twice."""
    ticks = iter(range(10**6))
    clock = SimpleNamespace(perf_counter=lambda: seconds * next(ticks))
    monkeypatch.setattr(loop, "time", clock)


def test_a_trial_stops_at_the_first_epochs_end_past_its_seconds(
    alone: dict[str, Trained], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_clock(monkeypatch, 6.0)
    trials = members(tmp_path, "kd", "dkd", "rsd")
    cohort = cohort_of(trials, per_trial_seconds=3.5)  # a third of 6 seconds an epoch: 2, then 4
    told = list(train_cohort(cohort, data(), teacher(), Group()))
    assert [[report.seconds for report in reports] for reports in told] == [
        [0.0] * 3,
        [2.0] * 3,
        [4.0] * 3,
    ]
    for report in told[-1]:
        assert report.status == "stopped"
        assert report.reason == "budget.per_trial_seconds reached after epoch 2"
    # Asked again, the loop trains nothing; with more time it goes on to the same numbers.
    assert len(list(train_cohort(cohort, data(), teacher(), Group()))) == 1
    outcomes = train(replace(cohort, per_trial_seconds=6.5))
    for member in trials:
        assert outcomes[member.name] == alone[member.name].outcome
        assert_same(files_of(member), alone[member.name].files)


def test_the_time_limit_does_not_stop_finished_trials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_clock(monkeypatch, 6.0)
    [outcome] = train(cohort_of(members(tmp_path, "kd"), per_trial_seconds=18.0)).values()
    assert (outcome.status, len(outcome.rows)) == ("done", EPOCHS)


def test_the_batch_must_fit_the_data_and_the_workers(tmp_path: Path) -> None:
    def cohort(batch_size: int) -> Cohort:
        return cohort_of(
            members(tmp_path, "kd", recipes={"kd": recipe_with(batch_size=batch_size)})
        )

    with pytest.raises(UserError, match=r"at most the number of training images \(100\).*got 101"):
        train(cohort(101))
    with pytest.raises(UserError, match=r"a multiple of resources\.workers \(2\), but got 33"):
        train(cohort(33), Group(0, 2))
    assert not checkpoint_path(tmp_path / "kd").exists()


def test_a_checkpoint_of_another_trial_or_seed_is_refused(tmp_path: Path) -> None:
    [member] = members(tmp_path, "kd")
    train(cohort_of((member,), epochs=1))
    other = Member("dkd", 1.0, TERMS["dkd"], RECIPE, member.folder)
    with pytest.raises(UserError, match="must be of trial dkd under seed 5, but is of kd under"):
        train(cohort_of((other,)))
    with pytest.raises(UserError, match="under seed 6, but is of kd under seed 5"):
        train(cohort_of((member,), seed=6))


@pytest.mark.parametrize(
    "change",
    [
        {"ce_weight": 0.5},
        {"ce_start_epoch": 2},
        {"recipe": recipe_with(lr=RECIPE.lr / 2)},
        {"terms": tuple(replace(term, weight=0.25) for term in TERMS["kd"])},
    ],
)
def test_a_checkpoint_of_another_objective_or_recipe_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    [member] = members(tmp_path, "kd")
    train(cohort_of((member,), epochs=1))
    with pytest.raises(UserError, match=r"checkpoint\.pt: the checkpoint must be of this trial's"):
        train(cohort_of((replace(member, **change),)))


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    [member] = members(tmp_path, "kd")
    train(cohort_of((member,), epochs=1))
    path = checkpoint_path(member.folder)
    saved = torch.load(path, weights_only=True)
    assert saved["definition"][0] == kdscale.__version__
    other = replace(member, ce_weight=0.5)
    for definition in (["0.0.9", "what it took for the definition"], None):
        saved["definition"] = definition
        torch.save({key: value for key, value in saved.items() if value is not None}, path)
        assert train(cohort_of((other,), epochs=1))["kd"].status == "done"


def test_equal_numbers_of_any_type_define_the_same_training() -> None:
    def definition(depth: float, alpha: float, recipe: RecipeSpec = RECIPE) -> str:
        term = TermConfig("a", "kd", 1, {"depth": depth, "alpha": alpha, "form": "x", "on": True})
        return definition_of(1.0, 1, (term,), recipe)

    known = definition(5, 8.0)
    assert definition(5.0, 8) == known
    assert definition(5, 8.0, recipe_with(executor="loop", channels_last=True)) == known
    assert len({known, definition(6, 8.0), definition(5, math.nextafter(8.0, 9.0))}) == 3
