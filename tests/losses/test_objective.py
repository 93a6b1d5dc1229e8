import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from kdscale.errors import UserError
from kdscale.losses import (
    METHODS,
    Batch,
    Method,
    Objective,
    PairShapes,
    Schedule,
    TermConfig,
    dkd,
    kd,
    ldrld,
)
from kdscale.outputs import Outputs, OutputShapes

SHAPES = PairShapes(OutputShapes(12, 6), OutputShapes(12, 9), batch_size=8)
KD = TermConfig("soft", "kd", 0.9, {"temperature": 2.0})
RSD = TermConfig("features", "rsd", 2.0, {})


def batch(dtype: torch.dtype = torch.float64) -> tuple[Outputs, Outputs, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(dims: int) -> torch.Tensor:
        return torch.randn(8, dims, generator=generator, dtype=torch.float64).to(dtype)

    student = Outputs(draw(12).requires_grad_(), draw(6).requires_grad_())
    return student, Outputs(draw(12), draw(9)), torch.arange(8)


def test_is_the_weighted_sum_of_its_parts() -> None:
    student, teacher, target = batch()
    terms = [
        KD,
        TermConfig("decoupled", "dkd", 0.5, {"beta": 2.0}),
        TermConfig("pairs", "ldrld", 1.0, {"depth": 5}),
    ]
    values = Objective(0.1, 0.2, terms, SHAPES, seed=0)(student, teacher, target)
    s, t = student.logits, teacher.logits
    expected = {
        "ce": F.cross_entropy(s, target, label_smoothing=0.2),
        "soft": kd(s, t, temperature=2.0),
        "decoupled": dkd(s, t, target, alpha=1.0, beta=2.0, temperature=4.0),
        "pairs": ldrld(s, t, alpha=10.5, beta=7.0, depth=5, temperature=4.0),
    }
    assert list(values) == ["loss", *expected]
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value.detach())
        assert not values[name].requires_grad
    total = (
        0.1 * expected["ce"]
        + 0.9 * expected["soft"]
        + 0.5 * expected["decoupled"]
        + 1.0 * expected["pairs"]
    )
    torch.testing.assert_close(values["loss"], total)
    torch.testing.assert_close(
        torch.autograd.grad(values["loss"], s), torch.autograd.grad(total, s)
    )


def test_ldrld_with_cross_entropy_is_the_official_total() -> None:
    cases = json.loads((Path(__file__).parent / "golden_losses.json").read_text())["cases"]
    case = next(case for case in cases if case["id"] == "ldrld/total")
    b, c = torch.meshgrid(torch.arange(6.0).double(), torch.arange(12.0).double(), indexing="ij")
    student = Outputs(3 * torch.sin(0.7 * b + 1.3 * c + 0.1 * b * c))
    teacher = Outputs(4 * torch.cos(0.5 * b - 0.9 * c + 0.05 * b * c))
    objective = Objective(1.0, 0.0, [TermConfig("ldrld", "ldrld", 1.0, {})], SHAPES, seed=0)
    values = objective(student, teacher, torch.tensor(case["inputs"]["y"]))
    assert values["loss"].item() == pytest.approx(case["value"], rel=1e-9)


def test_an_undistilled_student_needs_no_teacher() -> None:
    student, _, target = batch()
    objective = Objective(2.0, 0.0, [], SHAPES, seed=0)
    values = objective(student, None, target)
    assert objective.student_needs == objective.teacher_needs == {"logits"}
    assert list(values) == ["loss", "ce"]
    torch.testing.assert_close(values["loss"], 2 * F.cross_entropy(student.logits, target))


def test_methods_need_a_teacher() -> None:
    student, _, target = batch()
    with pytest.raises(ValueError, match="needs the teacher's outputs"):
        Objective(1.0, 0.0, [KD], SHAPES, seed=0)(student, None, target)


def test_needs_are_the_union() -> None:
    alone = Objective(1.0, 0.0, [KD], SHAPES, seed=0)
    assert alone.student_needs == alone.teacher_needs == {"logits"}
    both = Objective(1.0, 0.0, [KD, RSD], SHAPES, seed=0)
    assert both.student_needs == both.teacher_needs == {"logits", "embedding"}
    assert not both.second_view


def test_a_term_has_its_epochs_and_its_warm_up() -> None:
    student, teacher, target = batch()
    schedule = Schedule(warmup_epochs=4, start_epoch=2, stop_epoch=3)
    late = TermConfig("late", "kd", 2.0, schedule=schedule)
    objective = Objective(1.0, 0.0, [KD, late], SHAPES, seed=0, ce_start_epoch=3)
    for epoch, ce, factor in ((1, 0, 0), (2, 0, 0.25), (3, 1, 0.5), (4, 1, 0)):
        objective.start_epoch(epoch, 10)
        values = objective(student, teacher, target)
        wanted = ce * values["ce"] + 0.9 * values["soft"] + 2 * factor * values["late"]
        torch.testing.assert_close(values["loss"], wanted)
        assert (values["late"] == 0) == (factor == 0)


def test_ddp_hears_of_parameters_that_may_rest_for_an_epoch() -> None:
    def pauses(method: str, schedule: Schedule) -> bool:
        term = TermConfig("it", method, 1.0, {}, schedule)
        return Objective(1.0, 0.0, [term], SHAPES, seed=0).pauses

    assert not pauses("rsd", Schedule())
    assert pauses("rsd", Schedule("linear"))  # nothing is left in the last epoch
    assert not pauses("rsd", Schedule("linear", final_factor=0.1))
    assert not pauses("kd", Schedule("linear"))  # it has no parameters


def test_a_schedule_that_ends_before_it_starts_is_refused() -> None:
    backwards = TermConfig("kd", "kd", schedule=Schedule(start_epoch=3, stop_epoch=2))
    with pytest.raises(UserError, match=r"must be >= start_epoch \(3\), or 0, but got 2"):
        Objective(1.0, 0.0, [backwards], SHAPES, seed=0)


def test_without_a_weight_it_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "kd", replace(METHODS["kd"], weight=7.0))
    student, teacher, target = batch()
    values = Objective(0.0, 0.0, [TermConfig("kd", "kd")], SHAPES, seed=0)(student, teacher, target)
    torch.testing.assert_close(values["loss"], 7 * values["kd"])


def test_random_numbers_are_a_terms_own_and_the_same_on_all_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []

    def term(batch: Batch) -> torch.Tensor:
        drawn.append(batch.normal(3))
        return batch.student.logits.sum()

    noisy = replace(METHODS["kd"], name="noisy", build=lambda shapes, values: term)
    monkeypatch.setitem(METHODS, "noisy", noisy)
    terms = [TermConfig("a", "noisy"), TermConfig("b", "noisy")]
    objective = Objective(1.0, 0.0, terms, SHAPES, seed=0)
    student, teacher, target = batch()
    objective(student, teacher, target, key=5)
    halves = [Outputs(part) for part in student.logits.chunk(2)]
    for first, half in zip((0, 4), halves, strict=True):
        objective(half, teacher, target[:4], key=5, first=first, whole=8)
    objective(student, teacher, target, key=6)
    assert torch.equal(drawn[0], torch.cat([drawn[2], drawn[4]]))
    assert torch.equal(drawn[1], torch.cat([drawn[3], drawn[5]]))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[6])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_computes_in_single_precision_under_autocast(dtype: torch.dtype) -> None:
    student, teacher, target = batch(dtype)
    assert student.embedding is not None
    assert teacher.embedding is not None
    objective = Objective(1.0, 0.0, [KD, RSD], SHAPES, seed=0)
    wide = (
        Outputs(student.logits.float(), student.embedding.float()),
        Outputs(teacher.logits.float(), teacher.embedding.float()),
    )
    expected = objective(*wide, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = objective(student, teacher, target)
    for name, value in expected.items():
        assert values[name].dtype == torch.float32
        assert torch.equal(values[name], value)
    values["loss"].backward()
    assert student.logits.grad is not None
    assert student.logits.grad.dtype == dtype


def test_autocast_is_off_for_any_method(monkeypatch: pytest.MonkeyPatch) -> None:
    def term(batch: Batch) -> torch.Tensor:
        return (batch.student.logits @ batch.teacher.logits.T).square().mean()

    product = Method(
        name="product",
        title="",
        source="",
        reads=("logits",),
        hyperparameters=(),
        build=lambda shapes, values: term,
        refuse=lambda shapes, values: "",
    )
    monkeypatch.setitem(METHODS, "product", product)
    student, teacher, target = batch(torch.float32)
    objective = Objective(1.0, 0.0, [TermConfig("p", "product", 1.0, {})], SHAPES, seed=0)
    expected = objective(student, teacher, target)["p"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(objective(student, teacher, target)["p"], expected)


def test_double_precision_stays() -> None:
    student, teacher, target = batch()
    objective = Objective(1.0, 0.0, [KD, RSD], SHAPES, seed=0).double()
    assert all(v.dtype == torch.float64 for v in objective(student, teacher, target).values())


def aad_weights(objective: Objective) -> list[torch.Tensor]:
    return [p.detach().clone() for p in objective.parameters()]


def test_decoupler_depends_on_seed_and_term_name_alone() -> None:
    torch.manual_seed(1)
    first = aad_weights(Objective(1.0, 0.0, [RSD], SHAPES, seed=3))
    torch.manual_seed(2)
    other = TermConfig("other", "rsd", 1.0, {})
    second = Objective(1.0, 0.0, [other, KD, RSD], SHAPES, seed=3)
    both = aad_weights(second)
    assert len(both) == 2 * len(first)
    assert all(torch.equal(a, b) for a, b in zip(first, both[len(first) :], strict=True))
    assert not torch.equal(both[0], first[0])
    assert not torch.equal(aad_weights(Objective(1.0, 0.0, [RSD], SHAPES, seed=4))[0], first[0])


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Objective(1.0, 0.0, [RSD], SHAPES, seed=3)
    assert torch.equal(torch.rand(3), expected)


def test_decoupler_trains_with_the_student() -> None:
    student, teacher, target = batch(torch.float32)
    objective = Objective(1.0, 0.0, [RSD], SHAPES, seed=0)
    objective(student, teacher, target)["loss"].backward()
    assert student.embedding is not None
    gradients = [student.embedding.grad, *(p.grad for p in objective.parameters())]
    assert len(gradients) == 5
    assert all(g is not None and g.abs().sum() > 0 for g in gradients)


def test_state_dict_restores_the_decoupler() -> None:
    first = Objective(1.0, 0.0, [KD, RSD], SHAPES, seed=0)
    second = Objective(1.0, 0.0, [KD, RSD], SHAPES, seed=1)
    second.load_state_dict(first.state_dict())
    student, teacher, target = batch(torch.float32)
    assert torch.equal(
        first(student, teacher, target)["loss"], second(student, teacher, target)["loss"]
    )


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([TermConfig("a", "ldrd")], r'term "a": .*"ldrd" \(did you mean "ldrld"\?\)'),
        ([TermConfig("a", "xyz")], r'no method "xyz" \(`kdscale methods` lists them\)'),
        ([TermConfig("ce", "kd")], 'must not be "loss" or "ce", but got "ce"'),
        ([KD, KD], '"soft" is there twice'),
        ([TermConfig("a", "kd", -1.0)], 'term "a": weight must be finite and >= 0, but got -1.0'),
        ([TermConfig("a", "kd", float("nan"))], "but got nan"),
        ([TermConfig("a", "kd", 1.0, {"T": 4})], 'kd has no hyperparameter "T"'),
        ([TermConfig("a", "ldrld", 1.0, {"depth": 11})], r'term "a": ldrld needs .*but got 12'),
    ],
)
def test_bad_terms_are_refused(terms: list[TermConfig], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Objective(1.0, 0.0, terms, SHAPES, seed=0)


def test_a_term_of_one_workers_images_is_refused_for_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kdscale.losses._objective.worker_count", lambda: 8)
    Objective(1.0, 0.0, [RSD], SHAPES, seed=0)
    with pytest.raises(UserError, match=r"must hold at least 2 images .*but got 1"):
        Objective(1.0, 0.0, [replace(RSD, per_worker=True)], SHAPES, seed=0)


def test_bad_weights_of_cross_entropy_are_refused() -> None:
    with pytest.raises(UserError, match=r"ce_weight must be finite and >= 0, but got -0\.1"):
        Objective(-0.1, 0.0, [], SHAPES, seed=0)
    with pytest.raises(UserError, match=r"label_smoothing < 1 must hold, but got 1\.0"):
        Objective(1.0, 1.0, [], SHAPES, seed=0)
