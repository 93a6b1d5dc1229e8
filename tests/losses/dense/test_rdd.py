import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import METHODS, Batch
from kdscale.losses.dense import rdd_hard, rdd_stage_1, rdd_stage_2, rdd_weights
from kdscale.outputs import Outputs

from .maps import draw, draw_labels, pair

RDD = METHODS["rdd"]


def sure(*probabilities: float) -> tuple[Tensor, Tensor]:
    """Logits of two classes, one pixel a probability of class 0, and labels 0."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    z = torch.stack((p, 1 - p)).log().view(1, 2, 1, -1)
    return z, torch.zeros(1, 1, len(probabilities), dtype=torch.int64)


def test_weights_are_one_where_the_heads_agree_and_fall_with_their_kl() -> None:
    z_t = draw(2, 5, 3, 4)
    assert torch.equal(rdd_weights(z_t, z_t), torch.ones(2, 3, 4, dtype=torch.float64))
    auxiliary = draw(2, 5, 3, 4, seed=1)
    p, q = torch.softmax(auxiliary, dim=1), torch.softmax(z_t, dim=1)
    expected = torch.exp(-(p * (p / q).log()).sum(1))
    torch.testing.assert_close(rdd_weights(z_t, auxiliary), expected)


def test_stage_1_counts_ignored_pixels_in_the_mean() -> None:
    z_s, target, weights = draw(2, 5, 3, 4), draw_labels(5, 2, 3, 4), draw(2, 3, 4).sigmoid()
    cross_entropy = F.cross_entropy(z_s, target.clamp(min=0), reduction="none")
    expected = (cross_entropy * weights * (target >= 0)).sum() / target.numel()
    torch.testing.assert_close(rdd_stage_1(z_s, target, weights), expected)
    ones = torch.ones_like(weights)
    all_labelled = target.clamp(min=0)
    torch.testing.assert_close(
        rdd_stage_1(z_s, all_labelled, ones), F.cross_entropy(z_s, all_labelled)
    )


def test_stage_1_takes_logits_and_weights_to_the_labels() -> None:
    z_s, weights, target = draw(1, 5, 3, 4), draw(1, 3, 4).sigmoid(), draw_labels(5, 1, 6, 8)
    value = rdd_stage_1(z_s, target, weights)
    full, wide = (
        F.interpolate(x, (6, 8), mode="bilinear", align_corners=True)
        for x in (z_s, weights.unsqueeze(1))
    )
    torch.testing.assert_close(value, rdd_stage_1(full, target, wide.squeeze(1)))


def test_hard_pixels_are_the_unsure_ones_and_at_least_so_many() -> None:
    z, target = sure(0.1, 0.5, 0.69, 0.71, 0.9, 0.95)

    def hard(min_kept: int, labels: Tensor = target) -> list[bool]:
        return rdd_hard(z, labels, threshold=0.7, min_kept=min_kept)[0, 0].tolist()  # type: ignore[no-any-return]

    assert hard(0) == [True, True, True, False, False, False]
    assert hard(2) == hard(0)
    assert hard(5) == [True, True, True, True, True, False]
    assert hard(100) == [True] * 6
    ignored = target.clone()
    ignored[0, 0, 0] = -1
    assert hard(0, ignored) == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("mask", "picked"), [("xor", [0, 1]), ("or", [0, 1, 2]), ("and", [2]), ("ohem", [0, 2])]
)
def test_stage_2_learns_the_pixels_of_its_mask(mask: str, picked: list[int]) -> None:
    z_s, target = sure(0.2, 0.9, 0.3, 0.8)
    z_t, _ = sure(0.9, 0.2, 0.3, 0.8)
    value = rdd_stage_2(z_s, z_t, target, min_kept=1, mask=mask)
    expected = F.cross_entropy(z_s[..., picked], target[..., picked])
    torch.testing.assert_close(value, expected)


def test_stage_2_is_zero_at_the_teacher_and_weighs_classes() -> None:
    z_s, z_t = draw(2, 5, 3, 4, scale=3), draw(2, 5, 3, 4, seed=1, scale=3)
    target = draw_labels(5, 2, 6, 8)
    assert rdd_stage_2(z_t, z_t, target) == 0
    weights = draw(5, seed=2).abs()
    by_hand = rdd_stage_2(z_s, z_t, target, min_kept=1, class_weights=weights)
    full_s, full_t = (
        F.interpolate(z, (6, 8), mode="bilinear", align_corners=True) for z in (z_s, z_t)
    )
    disputed = rdd_hard(full_s, target, threshold=0.7, min_kept=1) ^ rdd_hard(
        full_t, target, threshold=0.7, min_kept=1
    )
    expected = F.cross_entropy(full_s, target.where(disputed, -1), weights, ignore_index=-1)
    torch.testing.assert_close(by_hand, expected)
    with pytest.raises(ValueError, match="one of xor, or, and, ohem, but got nor"):
        rdd_stage_2(z_s, z_t, target, mask="nor")


def test_term_keeps_a_share_of_the_pixels() -> None:
    z_s, z_t = draw(2, 5, 3, 4, scale=9), draw(2, 5, 3, 4, seed=1, scale=9)
    target = z_t.argmax(1)
    for kept in (0.0, 0.5):
        term = RDD.build(pair(), RDD.complete({"kept": kept}))
        value = term(Batch(Outputs(z_s), Outputs(z_t), target))
        expected = rdd_stage_2(z_s, z_t, target, min_kept=int(24 * kept))
        torch.testing.assert_close(value, expected)


def test_cityscapes_weights_are_for_its_classes() -> None:
    given = RDD.complete({"class_weights": "cityscapes"})
    assert "for 19 classes, got 5" in RDD.refuse(pair(), given)
    shapes = pair(classes=(19, 19))
    assert RDD.refuse(shapes, given) == ""
    z_s, z_t = draw(2, 19, 3, 4), 9 * draw(2, 19, 3, 4, seed=1)
    batch = Batch(Outputs(z_s), Outputs(z_t), z_t.argmax(1))
    weighted, plain = (
        RDD.build(shapes, RDD.complete({"class_weights": choice}))(batch)
        for choice in ("cityscapes", "none")
    )
    assert weighted > 0
    assert weighted != plain
