import pytest
import torch
import torch.nn.functional as F

from kdscale.losses import METHODS
from kdscale.losses.dense import DENSE_METHODS, pixel_kd
from kdscale.losses.dense._maps import labels_at, mean_cross_entropy, pixel_rows, sum_in_parts

from .maps import draw, draw_labels, pair

OF_LOGITS = {
    "pixel_kd", "cwd", "skd_pixel", "skd_holistic", "maskd", "dist_dense", "rdd", "aicsd", "bpkd",
    "rld_candidate", "ldrld_candidate",
}  # fmt: skip
OF_MAPS = {"feature_mse", "skd_pair", "ifvd", "cirkd_minibatch", "cirkd_memory", "attnfd"}
FITTING = {"attnfd": {"stages": "all"}}


def refusal(name: str, **shapes: object) -> str:
    method = METHODS[name]
    return method.refuse(pair(**shapes), method.complete(FITTING.get(name, {})))  # type: ignore[arg-type]


def test_every_dense_method_is_registered_and_compares_logits_or_maps() -> None:
    assert set(DENSE_METHODS) == OF_LOGITS | OF_MAPS
    for name, method in DENSE_METHODS.items():
        assert METHODS[name] is method
        assert method.name == name
        assert method.dense


@pytest.mark.parametrize("name", DENSE_METHODS)
def test_networks_on_two_grids_are_refused(name: str) -> None:
    assert refusal(name) == ""
    reason = refusal(name, teacher=(8, 8, 12))
    assert "the same height and width, but got 4 x 6 and 8 x 12" in reason


@pytest.mark.parametrize("name", sorted(OF_LOGITS))
def test_unequal_classes_are_refused_for_logits(name: str) -> None:
    assert "the same number of classes, but got 5 and 7" in refusal(name, classes=(5, 7))


@pytest.mark.parametrize("name", sorted(OF_MAPS))
def test_a_network_without_a_map_is_refused(name: str) -> None:
    assert refusal(name, student=None)
    assert refusal(name, teacher=None)


def test_functions_refuse_maps_of_two_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[B, C, H, W\], but got \[2, 5, 4, 6\] and \[2, 5, 4"):
        pixel_kd(draw(2, 5, 4, 6), draw(2, 5, 4, 7), temperature=1.0)


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (8, 12), (11, 3)])
def test_labels_are_those_of_the_nearest_pixels(grid: tuple[int, int]) -> None:
    target = draw_labels(9, 3, 8, 12)
    expected = F.interpolate(target.unsqueeze(1).double(), grid, mode="nearest").squeeze(1)
    assert torch.equal(labels_at(target, grid), expected.long())


def test_rows_are_pixels_image_by_image() -> None:
    x = draw(2, 5, 4, 6)
    rows = pixel_rows(x)
    assert torch.equal(rows[24 + 2 * 6 + 3], x[1, :, 2, 3])


def test_a_sum_in_parts_is_the_sum_with_its_gradient() -> None:
    x = draw(7, 3).requires_grad_()

    def total(part: torch.Tensor) -> torch.Tensor:
        return part.exp().sum()

    whole, parts = total(x), sum_in_parts(total, x, cost=3, limit=7)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(*(torch.autograd.grad(value, x) for value in (parts, whole)))


def test_mean_cross_entropy_skips_what_has_no_label() -> None:
    z, target, weight = draw(2, 5, 4, 6), draw_labels(5, 2, 4, 6), draw(5).abs()
    for weights in (None, weight):
        expected = F.cross_entropy(z, target, weights, ignore_index=-1)
        torch.testing.assert_close(mean_cross_entropy(z, target, weights), expected)
        assert mean_cross_entropy(z, torch.full_like(target, -1), weights) == 0
