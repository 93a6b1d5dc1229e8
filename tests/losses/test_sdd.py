import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdscale.losses import METHODS, PairShapes, dkd, kd, nkd, sdd, sdd_regions
from kdscale.outputs import OutputShapes

from .pairs import trial_of


def draw(seed: int, regions: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    r_s = 3 * torch.randn(6, 7, regions, generator=generator, dtype=torch.float64)
    r_t = 3 * torch.randn(6, 7, regions, generator=generator, dtype=torch.float64)
    return r_s, r_t, torch.randint(7, (6,), generator=generator)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 8))
def test_with_one_region_it_is_its_base(seed: int, temperature: float) -> None:
    r_s, r_t, y = draw(seed, regions=1)
    z_s, z_t = r_s[:, :, 0], r_t[:, :, 0]
    bases = {
        "kd": kd(z_s, z_t, temperature=temperature),
        "dkd": dkd(z_s, z_t, y, alpha=2.0, beta=3.0, temperature=temperature),
        "nkd": nkd(z_s, z_t, y, temperature=temperature, gamma=0.7),
    }
    for base, expected in bases.items():
        value = sdd(
            r_s,
            r_t,
            y,
            base=base,  # type: ignore[arg-type]
            temperature=temperature,
            alpha=2.0,
            beta=3.0,
            gamma=0.7,
            official_quirks=False,
        )
        torch.testing.assert_close(value, expected)


def test_regions_where_the_teacher_disagrees_with_itself_weigh_more() -> None:
    r_s, r_t, y = draw(3)
    plain = sdd(r_s, r_t, y, base="kd", temperature=4.0, disagreement_weight=1.0)
    torch.testing.assert_close(
        plain,
        torch.stack([kd(r_s[..., n], r_t[..., n], temperature=4.0) for n in range(5)]).mean(),
    )
    weighted = [
        sdd(r_s, r_t, y, base="kd", temperature=4.0, disagreement_weight=weight)
        for weight in (1.0, 2.0, 3.0)
    ]
    torch.testing.assert_close(weighted[2] - weighted[1], weighted[1] - weighted[0])
    assert weighted[1] > weighted[0]


def test_a_teacher_that_is_right_everywhere_or_nowhere_weighs_all_alike() -> None:
    r_s, r_t, y = draw(4)
    for column in (y, (y + 1) % 7):
        sure = r_t.scatter(1, column.view(-1, 1, 1).expand(-1, 1, 5), 50.0)
        values = [
            sdd(r_s, sure, y, base="kd", temperature=4.0, disagreement_weight=weight)
            for weight in (1.0, 7.0)
        ]
        torch.testing.assert_close(values[0], values[1])


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_zero_at_student_equal_to_teacher(base: str) -> None:
    r_s, _, y = draw(5)
    value = sdd(r_s, r_s, y, base=base, temperature=4.0)  # type: ignore[arg-type]
    torch.testing.assert_close(value, torch.zeros_like(value))


def test_quirk_leaves_the_label_among_nkds_other_classes() -> None:
    r_s, r_t, y = draw(6, regions=1)
    quirky = sdd(r_s, r_t, y, base="nkd", temperature=2.0, gamma=1.5)
    z_s, z_t = r_s[:, :, 0], r_t[:, :, 0]
    p_y = z_t.softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    target = -(p_y * z_s.log_softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)).mean()
    rest = -((z_t / 2).softmax(1) * (z_s / 2).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(quirky, target + 1.5 * 4 * rest)
    clean = sdd(r_s, r_t, y, base="nkd", temperature=2.0, gamma=1.5, official_quirks=False)
    assert not torch.isclose(quirky, clean)


def test_regions_are_means_of_class_maps() -> None:
    maps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    regions = sdd_regions(maps, scales=[1, 2, 4])
    assert regions.shape == (2, 3, 21)
    torch.testing.assert_close(regions[:, :, 0], maps.mean((2, 3)))
    torch.testing.assert_close(regions[:, :, 2], maps[:, :, :4, 4:].mean((2, 3)))
    torch.testing.assert_close(regions[:, :, 5 + 4], maps[:, :, 2:4, :2].mean((2, 3)))


def test_regions_of_a_small_map_repeat_it() -> None:
    maps = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    regions = sdd_regions(maps, scales=[1, 2])
    torch.testing.assert_close(regions[:, :, 1:], maps.flatten(2))


def test_term_of_scale_1_is_kd_of_the_pooled_class_maps() -> None:
    trial = trial_of("sdd", scales="1")
    maps_s, maps_t = trial.batch.student.class_maps, trial.batch.teacher.class_maps
    assert maps_s is not None
    assert maps_t is not None
    expected = kd(maps_s.mean((2, 3)), maps_t.mean((2, 3)), temperature=4.0)
    torch.testing.assert_close(trial.term(trial.batch), expected)


def test_refusals() -> None:
    method = METHODS["sdd"]
    hyperparameters = method.complete({})
    vit = OutputShapes(10, 8, linear=True)
    cnn = OutputShapes(10, 8, map=(8, 4, 4), linear=True)
    assert "the teacher must have a linear classifier on the mean of a map" in method.refuse(
        PairShapes(cnn, vit, batch_size=4), hyperparameters
    )
    other = OutputShapes(5, 8, map=(8, 4, 4), linear=True)
    assert "but got 10 and 5" in method.refuse(PairShapes(cnn, other, 4), hyperparameters)
    one = OutputShapes(1, 8, map=(8, 4, 4), linear=True)
    assert "at least 2 classes" in method.refuse(
        PairShapes(one, one, 4), method.complete({"base": "dkd"})
    )
    with pytest.raises(ValueError, match=r"\[B, C, N\] twice"):
        sdd(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2), base="kd", temperature=1.0)
