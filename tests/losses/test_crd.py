import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, CandidateSampler, CRDContrast, PairShapes, _crd, crd_nce
from kdscale.losses._crd_sampler import Mode

from .pairs import IMAGES, Trial, hyperparameters_for, shapes_for, trial_of

MODES = ("exact", "relax", "unlabelled")


def contrast_of(trial: Trial) -> CRDContrast:
    assert isinstance(trial.term, torch.nn.Module)
    found = trial.term.get_submodule("contrast")
    assert isinstance(found, CRDContrast)
    return found


def embeddings_of(trial: Trial) -> tuple[Tensor, Tensor]:
    contrast, batch = contrast_of(trial), trial.batch
    assert batch.student.embedding is not None
    assert batch.teacher.embedding is not None
    e_s = contrast.embed.of_student(batch.student.embedding)
    return F.normalize(e_s), F.normalize(contrast.embed.of_teacher(batch.teacher.embedding))


def test_nce_is_the_papers_sum() -> None:
    x = torch.tensor([[0.5, 0.1, 0.2], [0.3, 0.4, 0.6]], dtype=torch.float64)
    chance = 2 / 50
    expected = 0.0
    for row in x.tolist():
        expected -= math.log(row[0] / (row[0] + chance + 1e-7))
        expected -= sum(math.log(chance / (p + chance + 1e-7)) for p in row[1:])
    assert crd_nce(x, 50).item() == pytest.approx(expected / 2, rel=1e-12)


def test_a_row_moves_to_the_unit_vector_between_itself_and_the_embedding() -> None:
    trial = trial_of("crd", momentum=0.3)
    contrast, batch = contrast_of(trial), trial.batch
    assert batch.index is not None
    before = {"s": contrast.bank_s.clone(), "t": contrast.bank_t.clone()}
    trial.term(batch)
    for embedding, side in zip(embeddings_of(trial), "st", strict=True):
        wanted = before[side].clone()
        rows = 0.3 * before[side][batch.index] + 0.7 * embedding.detach()
        wanted[batch.index] = rows / rows.norm(dim=1, keepdim=True)
        torch.testing.assert_close(contrast.get_buffer(f"bank_{side}"), wanted)


def test_the_constants_are_those_of_the_first_batch() -> None:
    trial = trial_of("crd", negatives=20, temperature=0.5)
    contrast, batch = contrast_of(trial), trial.batch
    assert batch.index is not None
    sampler = trial.term.get_submodule("sampler")  # type: ignore[union-attr]
    candidates = sampler(batch.index, 20, batch.generator())
    a_s, _ = embeddings_of(trial)
    scores = torch.exp(torch.einsum("bkd,bd->bk", contrast.bank_t[candidates], a_s) / 0.5)
    assert contrast.log_z_s.isnan()
    trial.term(batch)
    torch.testing.assert_close(contrast.log_z_s.exp(), scores.detach().mean() * IMAGES)
    first = contrast.log_z_s.clone(), contrast.log_z_t.clone()
    trial.term(replace(batch, key=99))
    assert (contrast.log_z_s, contrast.log_z_t) == first


def test_banks_start_uniform_and_count_every_image() -> None:
    torch.manual_seed(0)
    contrast = CRDContrast(5, 6, 1000)
    bound = math.sqrt(3 / 128)
    for bank in (contrast.bank_s, contrast.bank_t):
        assert bank.shape == (1000, 128)
        assert 0.99 * bound < bank.max() <= bound
        assert bank.square().sum(1).mean() == pytest.approx(1.0, rel=0.02)
    assert not torch.equal(contrast.bank_s, contrast.bank_t)


def test_memory_survives_a_resume() -> None:
    trial = trial_of("crd", dtype=torch.float32)
    assert isinstance(trial.term, torch.nn.Module)
    for key in (1, 2):
        trial.term(replace(trial.batch, key=key))
    saved = copy.deepcopy(trial.term.state_dict())
    assert {"contrast.bank_s", "contrast.bank_t", "contrast.log_z_s"} <= saved.keys()
    assert not any("sampler" in name for name in saved)
    resumed = trial_of("crd", dtype=torch.float32, seed=5).term
    assert isinstance(resumed, torch.nn.Module)
    resumed.load_state_dict(saved)
    for key in (3, 4):
        batch = replace(trial.batch, key=key)
        assert torch.equal(resumed(batch), trial.term(batch))
    assert torch.equal(
        resumed.get_buffer("contrast.bank_t"), trial.term.get_buffer("contrast.bank_t")
    )


def test_outside_training_nothing_is_remembered() -> None:
    trial = trial_of("crd")
    contrast = contrast_of(trial)
    contrast.eval()
    before = {name: buffer.clone() for name, buffer in contrast.named_buffers()}
    trial.term(trial.batch)
    for name, buffer in contrast.named_buffers():
        assert torch.equal(buffer, before[name]) or name.startswith("log_z")
        assert not name.startswith("log_z") or buffer.isnan()


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(lambda x: len({*x}) > 1),
    mode=st.sampled_from(MODES),
    negatives=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
def test_negatives_are_never_of_the_own_class(
    labels: list[int], mode: Mode, negatives: int, seed: int
) -> None:
    of = torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(of), generator=generator)[:8]
    candidates = CandidateSampler(of, mode)(index, negatives, generator)
    assert candidates.shape == (len(index), negatives + 1)
    own = index.unsqueeze(1)
    if mode == "unlabelled":
        assert (candidates[:, 1:] != own).all()
    else:
        assert (of[candidates[:, 1:]] != of[own]).all()
    positive = candidates[:, :1]
    assert torch.equal(of[positive], of[own]) if mode == "relax" else torch.equal(positive, own)


@pytest.mark.parametrize("mode", MODES)
def test_negatives_are_uniform(mode: Mode) -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1])
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor([1, 4])
    drawn = CandidateSampler(labels, mode)(index, 60_000, generator)[:, 1:]
    for image, row in zip(index.tolist(), drawn, strict=True):
        allowed = torch.arange(8) != image
        if mode != "unlabelled":
            allowed = labels != labels[image]
        wanted = allowed / allowed.sum()
        shares = row.bincount(minlength=8) / row.numel()
        torch.testing.assert_close(shares, wanted, rtol=0.05, atol=0)


def test_draws_are_a_function_of_the_key_alone() -> None:
    values = [trial_of("crd") for _ in range(3)]
    first, again, other = values
    value = first.term(first.batch)
    torch.random.manual_seed(1234)
    assert torch.equal(again.term(again.batch), value)
    assert not torch.equal(other.term(replace(other.batch, key=77)), value)


def test_modes_differ() -> None:
    trials = [trial_of("crd", mode=mode) for mode in MODES]
    values = {round(trial.term(trial.batch).item(), 9) for trial in trials}
    assert len(values) == 3


def test_looking_rows_up_equals_the_dense_product(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for ratio, chunk in ((20, 256), (0, 256), (0, 5)):
        monkeypatch.setattr(_crd, "DENSE_RATIO", ratio)
        monkeypatch.setattr(_crd, "CHUNK", chunk)
        trial = trial_of("crd")
        value = trial.term(trial.batch)
        results.append((value, *torch.autograd.grad(value, trial.parts[1])))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-12, atol=1e-12)


def test_gradient_is_that_of_the_composition() -> None:
    trial = trial_of("crd")
    trial.term(trial.batch)  # sets the constants, which are not differentiated
    contrast, batch = contrast_of(trial), trial.batch
    contrast.eval()
    assert batch.index is not None
    sampler = trial.term.get_submodule("sampler")  # type: ignore[union-attr]
    rows = sampler(batch.index, 12, batch.generator())
    expected = torch.zeros((), dtype=torch.float64)
    sides = ((contrast.bank_t, contrast.log_z_s), (contrast.bank_s, contrast.log_z_t))
    for anchors, (bank, log_z) in zip(embeddings_of(trial), sides, strict=True):
        products = torch.einsum("bkd,bd->bk", bank[rows], anchors)
        expected = expected + crd_nce(torch.exp(products / 0.07 - log_z), IMAGES)
    value = trial.term(batch)
    torch.testing.assert_close(value, expected)
    own = [trial.parts[1], *contrast.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(value, own), torch.autograd.grad(expected, own), rtol=1e-8, atol=1e-12
    )


def test_no_rows_of_the_banks_are_kept_for_the_backward_pass() -> None:
    trial = trial_of("crd", negatives=500, dtype=torch.float32)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = trial.term(trial.batch)
    value.backward()
    assert max(kept) <= 8 * 128


def test_a_second_derivative_after_the_update_is_refused() -> None:
    trial = trial_of("crd")
    value = trial.term(trial.batch)
    with pytest.raises(RuntimeError, match="banks have moved on"):
        torch.autograd.grad(value, trial.parts[1], create_graph=True)


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    trial = trial_of("crd", temperature=temperature, dtype=torch.float32)
    for key in (1, 2):
        value = trial.term(replace(trial.batch, key=key))
        assert torch.isfinite(value)
        (gradient,) = torch.autograd.grad(value, trial.parts[1])
        assert torch.isfinite(gradient).all()


def test_refusals() -> None:
    method = METHODS["crd"]
    shapes, hyperparameters = shapes_for(method), hyperparameters_for(method)
    assert method.refuse(shapes, hyperparameters) == ""
    bare = PairShapes(shapes.student, shapes.teacher, 8)
    assert "needs a training split" in method.refuse(bare, hyperparameters)
    alike = replace(shapes, train_labels=torch.ones(9, dtype=torch.int64))
    assert "at least 2 classes, but got 1" in method.refuse(alike, hyperparameters)
    unlabelled = hyperparameters_for(method, mode="unlabelled")
    assert method.refuse(alike, unlabelled) == ""
    single = replace(shapes, train_labels=torch.ones(1, dtype=torch.int64))
    assert "at least 2 training images" in method.refuse(single, unlabelled)
    trial = trial_of("crd")
    with pytest.raises(ValueError, match="among its needs"):
        trial.term(replace(trial.batch, index=None))
