from dataclasses import replace

import pytest
import torch

from kdscale.losses import METHODS, Connector, PairShapes, SizeRegressor
from kdscale.outputs import OutputShapes

from .pairs import CNN, WIDER, hyperparameters_for

PAIR = PairShapes(CNN, WIDER, 8)


def one_stage(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> PairShapes:
    bare = OutputShapes(10, 6, preactivations=True, norms=True)
    return PairShapes(replace(bare, stages=(student,)), replace(bare, stages=(teacher,)), 8)


def refusal(name: str, shapes: PairShapes, stages: str = "last") -> str:
    method = METHODS[name]
    return method.refuse(shapes, hyperparameters_for(method, stages=stages))


@pytest.mark.parametrize(
    ("student", "teacher", "kernel"),
    [
        ((3, 8, 8), (5, 4, 4), (3, 3)),
        ((3, 4, 4), (5, 8, 8), (4, 4)),
        ((3, 8, 8), (5, 8, 8), (1, 1)),
        ((3, 7, 8), (5, 5, 4), (3, 5)),
    ],
)
def test_a_regressor_leads_to_the_teachers_shape(
    student: tuple[int, int, int], teacher: tuple[int, int, int], kernel: tuple[int, int]
) -> None:
    regressor = SizeRegressor(student, teacher)
    found = regressor(torch.randn(2, *student))
    assert found.shape == (2, *teacher)
    assert found.min() == 0
    assert regressor.conv.kernel_size == kernel
    assert SizeRegressor(student, teacher, relu=False)(torch.randn(2, *student)).min() < 0


def test_a_connector_keeps_the_grid() -> None:
    connector = Connector(3, 5)
    found = connector(torch.randn(4, 3, 6, 7))
    assert found.shape == (4, 5, 6, 7)
    # BatchNorm in training mode: each channel has mean 0.
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-6)
    assert connector.conv.bias is None


@pytest.mark.parametrize("name", ["fitnet", "ab"])
def test_grids_without_a_regressor_are_refused(name: str) -> None:
    assert refusal(name, one_stage((3, 8, 8), (4, 4, 4))) == ""
    assert refusal(name, one_stage((3, 4, 4), (4, 8, 8))) == ""
    assert refusal(name, one_stage((3, 7, 7), (4, 4, 4))) == ""
    reason = refusal(name, one_stage((3, 4, 4), (4, 7, 7)))
    assert reason == (
        "the student's grid must be half, twice or at least the teacher's, but got 4x4 and 7x7"
    )
    assert refusal(name, one_stage((3, 8, 6), (4, 4, 4)))
    assert refusal(name, one_stage((3, 4, 4), (4, 8, 6)))


@pytest.mark.parametrize("name", ["at", "nst", "vid", "ft"])
def test_grids_that_pooling_cannot_match_are_refused(name: str) -> None:
    assert refusal(name, one_stage((3, 8, 8), (4, 4, 4))) == ""
    assert refusal(name, one_stage((3, 3, 3), (4, 7, 5))) == ""
    assert refusal(name, one_stage((3, 6, 4), (4, 6, 4))) == ""
    assert refusal(name, one_stage((3, 8, 8), (4, 4, 3))) == (
        "maps must have one grid, or the lower one must be square, but got 8x8 and 4x3"
    )
    assert refusal(name, one_stage((3, 4, 4), (4, 4, 5)))


def test_mgd_wants_equal_grids() -> None:
    assert refusal("mgd", one_stage((3, 4, 4), (4, 4, 4))) == ""
    reason = refusal("mgd", one_stage((3, 8, 8), (4, 4, 4)))
    assert reason == "maps must have one grid, but got 8x8 and 4x4"


@pytest.mark.parametrize("name", ["ofd", "ickd"])
def test_ofd_and_ickd_take_any_grids(name: str) -> None:
    assert refusal(name, one_stage((3, 4, 4), (4, 7, 5))) == ""


@pytest.mark.parametrize("name", ["fitnet", "ft", "ab", "ofd", "ickd"])
def test_one_value_a_channel_is_refused(name: str) -> None:
    pooled = one_stage((3, 1, 1), (4, 1, 1))
    assert refusal(name, pooled) == ""
    reason = refusal(name, replace(pooled, batch_size=1))
    assert reason == "BatchNorm needs at least 2 values a channel, but got 1 image of 1x1"


@pytest.mark.parametrize("name", ["ab", "ofd"])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_network_without_preactivations_is_refused(name: str, side: str) -> None:
    lacking = replace(CNN if side == "student" else WIDER, preactivations=False)
    pair = PairShapes(lacking, WIDER, 8) if side == "student" else PairShapes(CNN, lacking, 8)
    reason = refusal(name, pair)
    assert reason.startswith(f"the {side} must put out its stages' features before")


@pytest.mark.parametrize("name", ["fitnet", "at", "vid", "nst", "ft", "ab", "ofd", "ickd", "mgd"])
def test_stages_that_are_not_there_are_refused(name: str) -> None:
    assert "at most 3" in refusal(name, PAIR, "4")
    assert "ascend" in refusal(name, PAIR, "3 1")
    reason = refusal(name, replace(PAIR, student=OutputShapes(10, 6)))
    assert reason == "the student must put out stage features, but this model has none"


@pytest.mark.parametrize(
    ("name", "stages", "kind"),
    [
        ("fitnet", {2}, "stage"),
        ("at", {1, 2, 3}, "stage"),
        ("nst", {1, 2, 3}, "stage"),
        ("vid", {1, 2, 3}, "stage"),
        ("ft", {3}, "stage"),
        ("ickd", {3}, "stage"),
        ("mgd", {3}, "stage"),
        ("ab", {1, 2, 3}, "preactivation"),
        ("ofd", {1, 2, 3}, "preactivation"),
    ],
)
def test_the_published_stages_are_asked_for(name: str, stages: set[int], kind: str) -> None:
    method = METHODS[name]
    needs = method.needs(PAIR, method.complete({}))
    assert needs.student == needs.teacher == {f"{kind} {number}" for number in stages}
    # A BatchNorm in the adaptor looks across the batch.
    assert method.couples_batch == (name in ("fitnet", "ft", "ickd", "ab", "ofd"))


def test_published_weights() -> None:
    published = {
        "fitnet": 100,
        "at": 1000,
        "vid": 1,
        "nst": 50,
        "ft": 200,
        "ab": 1,
        "ofd": 1e-3,
        "ickd": 2.5,
        "mgd": 7e-5,
    }
    assert {name: METHODS[name].weight for name in published} == published
