"""Counts of parameters and multiply-accumulates, and the networks that channels_last breaks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdscale.models import (
    count_parameters,
    create_model,
    multiply_accumulates,
    refuse_channels_last,
    wrap_student,
)
from kdscale.models._simkd import SimKD


def test_shared_parameters_count_once_and_buffers_not() -> None:
    layer = nn.Linear(3, 4)
    assert count_parameters(nn.Sequential(layer, nn.BatchNorm1d(4), layer)) == 16 + 8


def test_cost_follows_from_the_layers() -> None:
    # resnet8 of width 1: stem, three blocks, two projections, classifier, each pixel by pixel.
    network = create_model("resnet8", 5, args={"width": 1}, seed=0)
    stem = 1024 * 27
    blocks = 1024 * (9 + 9) + 256 * (18 + 36) + 64 * (72 + 144)
    projections = 256 * 2 + 64 * 8
    assert multiply_accumulates(network, 32) == stem + blocks + projections + 4 * 5


def test_measuring_leaves_the_network_alone() -> None:
    network = create_model("resnet8", 5, args={"width": 2}, seed=0)
    network.get_submodule("stages.0").eval()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    rng = torch.get_rng_state()
    multiply_accumulates(network, 32)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)


@given(width=st.integers(1, 12))
@settings(max_examples=12, deadline=None)
def test_channels_last_is_refused_to_resnets_under_eight_channels(width: int) -> None:
    network = create_model("resnet8", 5, args={"width": width}, seed=0)
    reason = refuse_channels_last(network)
    assert bool(reason) == (width < 8)
    if reason:
        assert "stages.2.0.shortcut.0" in reason
        assert str(width) in reason


def test_channels_last_is_refused_only_where_it_breaks() -> None:
    conv = nn.Conv2d
    assert refuse_channels_last(nn.Sequential(conv(6, 12, 1, stride=2))) != ""
    assert refuse_channels_last(nn.Sequential(conv(6, 12, 1, stride=(1, 3)))) != ""
    assert refuse_channels_last(nn.Sequential(conv(8, 12, 1, stride=2))) == ""
    assert refuse_channels_last(nn.Sequential(conv(6, 12, 1))) == ""
    assert refuse_channels_last(nn.Sequential(conv(6, 12, 3, stride=2))) == ""
    assert refuse_channels_last(nn.Sequential(conv(6, 12, 1, stride=2, groups=2))) == ""
    assert refuse_channels_last(nn.Sequential(conv(6, 12, 1, stride=2, device="meta"))) == ""


def test_the_zoo_at_its_own_widths_takes_channels_last() -> None:
    for name in ("resnet8", "resnet8x4", "wrn_16_1", "mobilenetv2", "shufflenetv1"):
        assert refuse_channels_last(create_model(name, 5, seed=0)) == ""


def test_a_student_with_the_teachers_classifier_counts_that_one() -> None:
    student = create_model("resnet8", 10, args={"width": 4}, seed=0)
    teacher = create_model("resnet8", 10, args={"width": 8}, seed=1)
    before = count_parameters(student)
    wrapped = wrap_student("simkd", student, teacher, {"factor": 2}, seed=0)
    assert isinstance(wrapped, SimKD)
    projector = sum(parameter.numel() for parameter in wrapped.projector.parameters())
    assert count_parameters(wrapped) == before - (16 + 1) * 10 + projector + (32 + 1) * 10
