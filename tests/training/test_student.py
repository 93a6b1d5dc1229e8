"""The recipe's options: what each changes in a step, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdscale.losses import TermConfig
from kdscale.models import create_model
from kdscale.training import Member, ModelSpec
from kdscale.training._student import Lesson, Student, _stream

from .tasks import STUDENT, Outcome, cohort_of, files_of, members, recipe_with, train

WIDE = ModelSpec(model="resnet8", args={"width": 8})


def one_step(
    folder: Path, *, model: ModelSpec = WIDE, **recipe: Any
) -> tuple[Outcome, dict[str, Tensor]]:
    """Returns what came out of one epoch of one step, and the student's weights, if any."""
    fields = {"batch_size": 100, "warmup_epochs": 0} | recipe
    [member] = members(folder, "rsd", recipes={"rsd": recipe_with(**fields)})
    [outcome] = train(cohort_of((member,), model=model, epochs=1)).values()
    return outcome, files_of(member).get("student.pt", {}).get("state", {})


def train_losses(outcome: Outcome) -> dict[str, float]:
    [row] = outcome.rows
    return {name: row[name] for name in ("train_loss", "train_ce", "train_rsd")}


def refused(folder: Path, *terms: TermConfig) -> str:
    member = Member("two", 1.0, terms, recipe_with(), folder)
    return train(cohort_of((member,)))["two"].reason


def test_ends_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    norm, simkd = TermConfig("norm", "norm"), TermConfig("simkd", "simkd")
    reason = refused(tmp_path, norm, simkd)
    assert reason == "only one method may change the student's end, but norm and simkd both do"
    reader = TermConfig("diffusion", "diffkd", None, {"ae_channels": 8})
    reason = refused(tmp_path, norm, reader)
    assert reason == 'term "diffusion": diffkd reads the map, which norm expands'


@pytest.fixture
def plain(tmp_path: Path) -> Outcome:
    return one_step(tmp_path / "plain")[0]


def test_bf16_is_for_networks_and_not_for_weights_and_losses(
    plain: Outcome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[torch.dtype] = []
    step = Student.step

    def spied(self: Student, lesson: Lesson) -> None:
        def see(network: torch.nn.Module, inputs: Any, logits: Tensor) -> None:
            seen.append(logits.dtype)

        teacher = lesson.teacher
        assert teacher is not None
        assert teacher.embedding is not None
        seen.extend((lesson.images.dtype, teacher.logits.dtype, teacher.embedding.dtype))
        hook = self.network.get_submodule("classifier").register_forward_hook(see)
        step(self, lesson)
        hook.remove()

    monkeypatch.setattr(Student, "step", spied)
    outcome, state = one_step(tmp_path / "bf16", precision="bf16")
    assert seen == [torch.float32] + [torch.bfloat16] * 3
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    # bfloat16 keeps 8 bits, so the networks' outputs are off by some 2^-8.
    assert train_losses(outcome) != train_losses(plain)
    assert train_losses(outcome) == pytest.approx(train_losses(plain), rel=2e-2)


def test_channels_last_changes_the_layout_alone(plain: Outcome, tmp_path: Path) -> None:
    outcome, state = one_step(tmp_path / "last", channels_last=True)
    kernels = [value for value in state.values() if value.ndim == 4 and value.shape[-1] > 1]
    assert kernels
    assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    assert not any(k.is_contiguous() for k in kernels)
    # Float32 sums in another order.
    assert train_losses(outcome) == pytest.approx(train_losses(plain), rel=1e-4)


def test_channels_last_is_refused_where_it_corrupts_memory(tmp_path: Path) -> None:
    outcome, _ = one_step(tmp_path, model=STUDENT, channels_last=True)
    assert outcome.status == "failed"
    assert outcome.reason.startswith("recipe.channels_last: on CPU, channels_last corrupts memory")


def test_compiled_students_train_to_the_same_losses(
    plain: Outcome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Traced and differentiated ahead of time, but run by PyTorch: no C++ compiler is needed.
    compilations: list[object] = []

    def compile_lightly(function: Any, *args: Any, **kwargs: Any) -> Any:
        compilations.append(function)
        return compile_with(function, *args, backend="aot_eager", **kwargs)

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", compile_lightly)
    outcome, state = one_step(tmp_path / "compiled", compile=True)
    assert len(compilations) == 1
    assert train_losses(outcome) == pytest.approx(train_losses(plain), rel=1e-4)
    # The files are those of a student that was never compiled.
    assert list(state) == list(create_model("resnet8", 100, args={"width": 8}, seed=0).state_dict())


@pytest.mark.slow
def test_a_mode_of_torch_compile_trains_to_the_same_losses(plain: Outcome, tmp_path: Path) -> None:
    # On a CPU there are no CUDA graphs: the mode is that of plain compiled code.
    outcome, _ = one_step(tmp_path / "compiled", compile="reduce-overhead")
    assert outcome.status == "done", outcome.reason
    assert train_losses(outcome) == pytest.approx(train_losses(plain), rel=1e-4)


def test_compiling_without_a_compiler_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    outcome, _ = one_step(tmp_path, compile=True)
    assert outcome.status == "failed"
    assert outcome.reason == (
        "recipe.compile: torch.compile needs a C++ compiler, but there is no no-such-compiler: "
        "install it, or name another in CXX (or write compile: false)"
    )


def test_clipping_bounds_a_steps_gradient(tmp_path: Path) -> None:
    start = create_model("resnet8", 100, args={"width": 8}, seed=5)
    names = [name for name, _ in start.named_parameters()]

    def moved(name: str, **recipe: Any) -> float:
        bare: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
        _, state = one_step(tmp_path / name, **bare, **recipe)
        before = start.state_dict()
        moves = torch.cat([(state[n] - before[n]).reshape(-1) for n in names])
        return float(moves.norm())

    free = moved("free")
    assert moved("loose", clip_norm=1e6) == free > 0.5
    # The decoupler's parameters have their share of the norm.
    assert 0.001 < moved("tight", clip_norm=0.1) <= 0.1 * (1 + 1e-5)


def test_label_smoothing_is_of_the_cross_entropy(plain: Outcome, tmp_path: Path) -> None:
    smooth = train_losses(one_step(tmp_path / "smooth", label_smoothing=0.1)[0])
    sharp = train_losses(plain)
    assert smooth["train_ce"] != sharp["train_ce"]
    assert smooth["train_rsd"] == sharp["train_rsd"]


def test_random_streams_differ_by_seed_epoch_step_and_worker() -> None:
    keys = [
        (seed, epoch, step, rank)
        for seed in range(4)
        for epoch in range(12)
        for step in range(25)
        for rank in range(3)
    ]
    streams = {_stream(*key) for key in keys}
    assert len(streams) == len(keys)
    assert all(0 <= stream < 2**63 for stream in streams)
    assert streams == {_stream(*key) for key in keys}
