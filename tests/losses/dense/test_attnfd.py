import torch
import torch.nn.functional as F
from torch import nn

from kdscale.losses import METHODS, Batch
from kdscale.losses.dense import CBAM, AttnFDConnector, attnfd, attnfd_teacher
from kdscale.outputs import Outputs

from .maps import draw, draw_labels, pair

ATTNFD = METHODS["attnfd"]


def test_sees_directions_over_the_whole_batch() -> None:
    r_s, r_t = draw(3, 4, 2, 5), draw(3, 4, 2, 5, seed=1)
    assert attnfd(r_t, r_t) == 0
    torch.testing.assert_close(attnfd(7 * r_s, 2 * r_t), attnfd(r_s, r_t))
    cosine = F.cosine_similarity(r_s.flatten(), r_t.flatten(), dim=0)
    torch.testing.assert_close(attnfd(r_s, r_t), (2 - 2 * cosine) / 3)
    # Of one image alone the scale matters, since the norm is the batch's.
    scaled = torch.cat((5 * r_s[:1], r_s[1:]))
    assert not torch.allclose(attnfd(scaled, r_t), attnfd(r_s, r_t))
    assert torch.isfinite(attnfd(torch.zeros_like(r_s), r_t))


def test_teachers_attention_has_no_parameters_and_keeps_the_sign() -> None:
    f_t = draw(2, 4, 3, 5)
    refined = attnfd_teacher(f_t)
    channel = torch.sigmoid(f_t.mean((2, 3)) + f_t.amax((2, 3)))[:, :, None, None] * f_t
    position = torch.sigmoid(channel.amax(1) + channel.mean(1)).unsqueeze(1)
    torch.testing.assert_close(refined, channel * position)
    assert torch.equal(refined.sign(), f_t.sign())


def test_students_attention_lies_between_nothing_and_all() -> None:
    torch.manual_seed(0)
    f_s = draw(2, 32, 3, 5)
    module = CBAM(32).double()
    refined = module(f_s)
    assert (refined.abs() < f_s.abs()).all()
    assert module.mlp[0].out_features == 2
    assert CBAM(3).mlp[0].out_features == 1
    connector = AttnFDConnector(32, 6).double()
    assert connector(f_s).shape == (2, 6, 3, 5)


def test_term_sums_over_stages_and_map_and_trains_all_of_its_parts() -> None:
    torch.manual_seed(0)
    hyperparameters = ATTNFD.complete({"stages": "1 2"})
    shapes = pair()
    needs = ATTNFD.needs(shapes, hyperparameters)
    assert needs.student == needs.teacher == {"map", "stage 0", "stage 1"}
    term = ATTNFD.build(shapes, hyperparameters)
    assert isinstance(term, nn.Module)
    term.double()
    networks = []
    for side, seed in ((shapes.student, 0), (shapes.teacher, 9)):
        stages = {k: draw(4, *shape, seed=seed + k) for k, shape in enumerate(side.stages)}
        assert side.map is not None
        of_map = draw(4, *side.map, seed=seed + 3)
        networks.append(Outputs(draw(4, 5, 4, 6), map=of_map, stages=stages))
    value = term(Batch(*networks, draw_labels(5, 4, 8, 8)))
    assert 0 < value < 3 * 4 / 4
    value.backward()
    for name, parameter in term.named_parameters():
        assert parameter.grad is not None
        # A hidden unit of so small an attention may be off for the whole batch.
        assert parameter.grad.abs().sum() > 0 or ".mlp." in name


def test_missing_stages_are_refused() -> None:
    reason = ATTNFD.refuse(pair(), ATTNFD.complete({}))
    assert "stages must be at most 2" in reason
