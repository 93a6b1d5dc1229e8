import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdscale.losses import METHODS, Batch
from kdscale.losses.dense import cwd, feature_mse
from kdscale.outputs import Outputs

from .maps import draw, draw_labels, pair

CWD = METHODS["cwd"]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 8))
def test_a_constant_on_a_channel_changes_nothing(seed: int, temperature: float) -> None:
    f_s, f_t = draw(2, 5, 3, 4, seed=seed, scale=3), draw(2, 5, 3, 4, seed=seed + 1, scale=3)
    value = cwd(f_s, f_t, temperature=temperature)
    shifted = f_s + 4 * draw(2, 5, 1, 1, seed=seed + 2), f_t - draw(2, 5, 1, 1, seed=seed + 3)
    torch.testing.assert_close(cwd(*shifted, temperature=temperature), value)
    assert value > 0
    torch.testing.assert_close(cwd(f_t, f_t, temperature=temperature), torch.zeros_like(value))


def test_a_peaked_student_is_finite() -> None:
    f_s, f_t = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    f_s[0, 0, 0, 0] = 1e4
    # Log-probabilities 0 and three times -1e4, against log 1/4.
    expected = torch.tensor(0.75e4) - torch.tensor(4.0).log()
    torch.testing.assert_close(cwd(f_s, f_t, temperature=1.0), expected)


def run(given: dict[str, object], shapes: object = None) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    found = pair() if shapes is None else shapes
    term = CWD.build(found, CWD.complete({"variant": "map", **given}))  # type: ignore[arg-type]
    assert isinstance(term, nn.Module)
    dims = found.student.map[0], found.teacher.map[0]  # type: ignore[attr-defined]
    student = Outputs(draw(4, 5, 4, 6), map=draw(4, dims[0], 4, 6, seed=1))
    teacher = Outputs(draw(4, 5, 4, 6), map=draw(4, dims[1], 4, 6, seed=2))
    return term, term.double()(Batch(student, teacher, draw_labels(5, 4, 4, 6)))


def test_the_map_is_aligned_only_where_channels_differ() -> None:
    term, value = run({})
    assert [tuple(p.shape) for p in term.parameters()] == [(8, 6, 1, 1)]
    value.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())
    same, value = run({}, pair(teacher=(6, 4, 6)))
    assert not list(same.parameters())
    expected = cwd(draw(4, 6, 4, 6, seed=1), draw(4, 6, 4, 6, seed=2), temperature=4.0)
    torch.testing.assert_close(value, expected)


def test_the_official_divisor_is_the_students_channels() -> None:
    official, clean = run({})[1], run({"official_quirks": False})[1]
    torch.testing.assert_close(official, clean * 8 / 6)


def test_needs_follow_the_variant() -> None:
    assert CWD.needs(pair(), CWD.complete({})).student == {"logits"}
    assert CWD.needs(pair(), CWD.complete({"variant": "map"})).student == {"map"}
    other_classes = pair(classes=(5, 7))
    assert CWD.refuse(other_classes, CWD.complete({}))
    assert CWD.refuse(other_classes, CWD.complete({"variant": "map"})) == ""


def test_feature_mse_trains_its_convolution() -> None:
    method = METHODS["feature_mse"]
    term = method.build(pair(), {})
    assert isinstance(term, nn.Module)
    f_s, f_t = draw(4, 6, 4, 6, seed=1), draw(4, 8, 4, 6, seed=2)
    value = term.double()(
        Batch(Outputs(f_s, map=f_s), Outputs(f_t, map=f_t), draw_labels(5, 4, 4, 6))
    )
    value.backward()
    (weight,) = term.parameters()
    assert weight.grad is not None
    expected = (torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], f_s) - f_t).square().mean()
    torch.testing.assert_close(value, expected)
    assert feature_mse(f_t, f_t) == 0
