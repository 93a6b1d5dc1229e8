"""The inference-only form of the teacher: what it teaches, bit by bit, and how it is chosen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from kdscale.data import fingerprint
from kdscale.losses import TermConfig
from kdscale.models import Network, create_model, inference_form
from kdscale.training import (
    CachedTeacher,
    Cohort,
    FormChoice,
    Group,
    Member,
    RecipeSpec,
    TeacherCacheSpec,
    Teaching,
    measured_form,
    settled,
    train_cohort,
)
from kdscale.training import _form as form_module

from .tasks import (
    RECIPE,
    TERMS,
    Outcome,
    assert_same,
    cohort_of,
    data,
    files_of,
    follow,
    recipe_with,
)
from .test_teach import batch, tensors

READERS = TERMS | {
    name: (TermConfig(name, name, weight),)
    for name, weight in {
        "fitnet": 0.1,  # stages
        "at": 1.0,
        "ofd": 1e-4,  # pre-activations and their norms
        "ab": 1e-4,
        "fcfd": 0.1,  # the tail
        "srrl": 0.1,  # the classifier
        "cat_kd": 1.0,  # class maps
    }.items()
}
NAMES = tuple(name for name in READERS if name != "undistilled")
PLAIN = FormChoice("plain", 1.25, 3, 1e-6, 1.0)
FOLDED = FormChoice("folded", 0.5, 25, 1e-6, 1.0)


def plain() -> Network:
    """Returns a teacher wide enough for channels_last, its statistics none of a new one's."""
    network = create_model("resnet8", data().num_classes, args={"width": 8}, seed=9)
    with torch.no_grad():
        for _ in range(2):
            network(batch(0)[0])  # in training mode: moves the statistics
    return network.eval().requires_grad_(requires_grad=False)


def folded() -> Network:
    return inference_form(plain(), 32)


def behind(folder: Path, load: Any = folded) -> CachedTeacher:
    """Returns the folded teacher behind the cache of a folder."""
    identity = {"weights": "t", "inference": "folded"}
    return CachedTeacher(load, identity, fingerprint(data().train), TeacherCacheSpec(), folder)


def must_not_run(*_: object) -> NoReturn:
    raise AssertionError("this must not run")


def trials(folder: Path, *names: str) -> tuple[Member, ...]:
    return tuple(Member(name, 1.0, READERS[name], RECIPE, folder / name) for name in names)


def train(cohort: Cohort, source: Network | CachedTeacher) -> dict[str, Outcome]:
    return follow(train_cohort(cohort, data(), source, Group()))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Outcome], Path]:
    """Returns what one cohort of all trials came to under the live folded teacher, and where."""
    folder = tmp_path_factory.mktemp("together")
    return train(cohort_of(trials(folder, *NAMES)), folded()), folder


@pytest.mark.parametrize("channels_last", [False, True])
def test_outputs_are_the_plain_ones_in_the_students_format(channels_last: bool) -> None:
    recipe = recipe_with(channels_last=channels_last)
    network = folded()
    assert network.image_format is torch.channels_last
    needs = network.offers - {"tail"}
    images = batch(0, recipe=recipe)[0]
    got = tensors(Teaching(network, recipe, data(), Group()).live(images, needs))
    wanted = tensors(Teaching(plain(), recipe, data(), Group()).live(images, needs))
    got.pop("strides"), wanted.pop("strides")
    assert list(got) == list(wanted)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    kind = torch.channels_last if channels_last else torch.contiguous_format
    maps = [part for part in got.values() if isinstance(part, torch.Tensor) and part.ndim == 4]
    assert maps
    assert all(part.is_contiguous(memory_format=kind) for part in maps)


def test_every_reader_trains_as_under_the_plain_teacher(
    together: tuple[dict[str, Outcome], Path], tmp_path: Path
) -> None:
    wanted = train(cohort_of(trials(tmp_path, *NAMES)), plain())
    for name, outcome in together[0].items():
        assert outcome.status == wanted[name].status == "done"
        first, other = outcome.rows[0], wanted[name].rows[0]
        assert first["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3), name


@pytest.mark.parametrize("names", [("kd",), ("ofd", "kd"), ("fcfd",), ("srrl", "fcfd", "deep")])
def test_numbers_do_not_depend_on_the_company(
    names: tuple[str, ...], together: tuple[dict[str, Outcome], Path], tmp_path: Path
) -> None:
    outcomes, folder = together
    assert train(cohort_of(trials(tmp_path, *names)), folded()) == {n: outcomes[n] for n in names}
    for member, other in zip(trials(tmp_path, *names), trials(folder, *names), strict=True):
        assert_same(files_of(member), files_of(other))


def test_cold_warm_and_resumed_are_the_same(
    together: tuple[dict[str, Outcome], Path], tmp_path: Path
) -> None:
    outcomes, folder = together
    names = tuple(name for name in NAMES if name not in ("fcfd", "simkd", "views"))
    cold = train(cohort_of(trials(tmp_path / "cold", *names)), behind(tmp_path / "cache"))
    unloaded = behind(tmp_path / "cache", must_not_run)
    warm = train(cohort_of(trials(tmp_path / "warm", *names)), unloaded)
    assert cold == warm == {name: outcomes[name] for name in names}
    progress = train_cohort(cohort_of(trials(tmp_path / "on", *names)), data(), unloaded, Group())
    next(progress), next(progress)
    progress.close()
    train(cohort_of(trials(tmp_path / "on", *names)), folded())
    for kind in ("cold", "warm", "on"):
        members = trials(tmp_path / kind, *names)
        for member, other in zip(members, trials(folder, *names), strict=True):
            assert_same(files_of(member), files_of(other))


def work(rank: int, rendezvous: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    group = Group.current(torch.device("cpu"))
    told = {}
    for kind, source in (("live", folded()), ("cold", behind(folder / "cache"))):
        cohort = cohort_of(trials(folder / kind, "kd", "ofd"))
        told[kind] = follow(train_cohort(cohort, data(), source, group))
    torch.save(told, folder / f"worker-{rank}.pt")
    dist.barrier()
    os._exit(0)  # see test_distributed


@pytest.mark.slow
def test_two_workers_live_and_cached_are_the_same(
    together: tuple[dict[str, Outcome], Path], tmp_path: Path
) -> None:
    with TemporaryDirectory() as other:
        spawn(work, args=(f"{other}/rendezvous", tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    told = torch.load(tmp_path / "worker-0.pt", weights_only=False)
    assert told["live"] == told["cold"]
    for name, outcome in told["live"].items():
        first, other_first = outcome.rows[0], together[0][name].rows[0]
        assert first["train_loss"] == pytest.approx(other_first["train_loss"], rel=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_forms_are_measured_and_agree(precision: Any) -> None:
    recipe = RecipeSpec(precision=precision, batch_size=32)
    choice = measured_form(plain(), recipe, data(), 32, torch.device("cpu"))
    assert choice.difference <= {"fp32": 1e-5, "bf16": 5e-2}[precision]
    assert choice.agreement >= 0.9
    assert choice.rounds >= 3
    assert (choice.form == "folded") == (choice.ratio <= 0.97)


def test_a_form_that_does_not_agree_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: Network, image_size: int) -> Network:
        form = inference_form(network, image_size)
        with torch.no_grad():
            form.get_parameter("classifier.weight").mul_(1.1)
        return form

    monkeypatch.setattr(form_module, "inference_form", wrong)
    monkeypatch.setattr(form_module, "_ratios", lambda *_: [0.1])
    choice = measured_form(plain(), RECIPE, data(), 32, torch.device("cpu"))
    assert (choice.form, choice.ratio) == ("plain", 0.1)
    assert choice.difference > 1e-2


def test_a_choice_is_measured_once_and_kept(tmp_path: Path) -> None:
    shared, own = tmp_path / "caches/forms/k.json", tmp_path / "trial/form.json"
    assert settled([shared], lambda: PLAIN) == PLAIN
    assert settled([shared], must_not_run) == PLAIN
    assert settled([own, shared], must_not_run) == PLAIN
    shared.unlink()
    assert settled([own, shared], must_not_run) == PLAIN  # a trial goes on as it began
    assert settled([shared], lambda: FOLDED) == FOLDED
    assert settled([own, shared], must_not_run) == PLAIN
    assert [path.name for path in sorted(tmp_path.rglob("*.*"))] == ["k.json", "form.json"]


def test_of_two_that_measure_at_once_the_first_to_write_has_chosen(tmp_path: Path) -> None:
    path = tmp_path / "k.json"

    def overtaken() -> FormChoice:
        settled([path], lambda: PLAIN)
        return FOLDED

    assert settled([path], overtaken) == PLAIN


@pytest.mark.parametrize("content", ["", "{", '{"form": "plain"}', "[]"])
def test_a_damaged_choice_is_measured_anew(content: str, tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    path.write_text(content)
    assert settled([path], lambda: FOLDED) == FOLDED
    assert FormChoice(**json.loads(path.read_text())) == FOLDED


def test_a_choice_that_cannot_be_kept_is_still_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert settled([tmp_path / "file" / "k.json"], lambda: FOLDED) == FOLDED
