from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from kdscale.search import Study, designed_configuration
from kdscale.search._designs import SPACE_FILLING

from .studies import make_study

SPACE: dict[str, Any] = {
    "alpha": {"min": 2, "max": 14},
    "beta": {"min": 0.025, "max": 8.5, "distribution": "log_uniform_values"},
    "depth": {"min": 3, "max": 9, "q": 2},
    "temperature": {"values": [1, 2, 4]},
    "recipe.lr": {"min": 0.1, "max": 0.7, "q": 0.1},
    "recipe.weight_decay": {
        "min": 0.1,
        "max": 10,
        "q": 0.1,
        "distribution": "q_log_uniform_values",
    },
    "include_group": {"value": False},
}
BASELINE = {
    "alpha": 3,
    "beta": 1,
    "depth": 5,
    "temperature": 4,
    "recipe.lr": 0.3,
    "recipe.weight_decay": 0.2,
}
STEPS: dict[str, Any] = {
    "alpha": {"values": [6, 6.5, 7]},
    "beta": {"min": 0.5, "max": 2, "q": 0.5},
    "depth": {"min": 3, "max": 5},
}


def drawn(method: str, seed: int = 0, trials: int = 8, **search: Any) -> Study:
    return make_study(
        parameters=SPACE,
        search={"method": method, "seed": seed, **search},
        budget={"trials": trials, "epochs": 4},
    )


def all_configurations(study: Study) -> list[dict[str, Any]]:
    return [designed_configuration(study, number) for number in range(study.configurations)]


def test_grid_covers_every_combination_once_with_the_last_parameter_fastest() -> None:
    study = make_study(parameters=STEPS, search={"method": "grid"}, budget={"epochs": 4})
    grid = itertools.product((6.0, 6.5, 7.0), (0.5, 1.0, 1.5, 2.0), (3, 4, 5))
    assert [tuple(point.values()) for point in all_configurations(study)] == list(grid)
    assert study.configurations == 36
    with pytest.raises(IndexError):
        designed_configuration(study, 36)


def test_grid_opens_with_its_baseline_and_still_covers_everything_once() -> None:
    baseline = {"depth": 4, "alpha": 6.5, "beta": 1.5}
    plain = make_study(parameters=STEPS, search={"method": "grid"}, budget={"epochs": 4})
    study = make_study(
        parameters=STEPS, search={"method": "grid", "baseline": baseline}, budget={"epochs": 4}
    )
    points = all_configurations(study)
    assert points[0] == baseline
    assert list(points[0]) == ["alpha", "beta", "depth"]
    assert points[1:] == [point for point in all_configurations(plain) if point != baseline]


def test_grid_without_parameters_is_one_configuration() -> None:
    study = make_study(parameters=None, search={"method": "grid"}, budget={"epochs": 4}, seeds=3)
    assert all_configurations(study) == [{}]
    assert study.trials == 3


def test_oat_is_the_layout_of_a_sensitivity_table() -> None:
    study = make_study(
        parameters={"alpha": {"values": [6, 9.5, 10]}, "beta": {"min": 1, "max": 2, "q": 0.5}},
        search={"method": "oat", "baseline": {"alpha": 9.5, "beta": 1.5}},
        budget={"epochs": 4},
    )
    assert [tuple(point.values()) for point in all_configurations(study)] == [
        (9.5, 1.5),
        (6.0, 1.5),
        (10.0, 1.5),
        (9.5, 1.0),
        (9.5, 2.0),
    ]
    assert study.trials == 5


def test_a_factorial_crosses_the_ends_of_ranges_with_all_listed_values() -> None:
    space = {
        "alpha": {"min": 2, "max": 14},
        "depth": {"min": 3, "max": 7, "q": 2},
        "temperature": {"values": [1, 2, 4]},
    }
    centre = {"alpha": 8, "depth": 5, "temperature": 2}
    corners = list(itertools.product((2.0, 14.0), (3, 7), (1.0, 2.0, 4.0)))
    search = {"method": "factorial"}
    plain = make_study(parameters=space, search=search, budget={"epochs": 4})
    assert [tuple(point.values()) for point in all_configurations(plain)] == corners
    for baseline in (centre, {"alpha": 14, "depth": 3, "temperature": 4}):
        study = make_study(
            parameters=space, search={**search, "baseline": baseline}, budget={"epochs": 4}
        )
        first = tuple(map(float, baseline.values()))
        found = [tuple(map(float, point.values())) for point in all_configurations(study)]
        assert found == [first, *(corner for corner in corners if corner != first)]


def test_each_generation_of_lhs_is_a_latin_hypercube() -> None:
    space = {"alpha": {"min": 0, "max": 1}, "beta": {"min": 0, "max": 1}}
    study = make_study(
        parameters=space,
        search={"method": "lhs", "generation": 6},
        budget={"trials": 18, "epochs": 4},
    )
    points = np.array([list(point.values()) for point in all_configurations(study)], dtype=float)
    for block in points.reshape(3, 6, 2):
        np.testing.assert_array_equal(
            np.sort(np.floor(6 * block), axis=0), [[n, n] for n in range(6)]
        )


@pytest.mark.parametrize("method", SPACE_FILLING)
@given(seed=st.integers(0, 2**32), number=st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_drawn_configurations_lie_in_the_space(method: str, seed: int, number: int) -> None:
    study = drawn(method, seed)
    configuration = designed_configuration(study, number)
    assert list(configuration) == [name for name in SPACE if name != "include_group"]
    for axis in study.axes:
        assert axis.contains(configuration[axis.name]), axis.name
        assert axis.distribution()._contains(
            axis.distribution().to_internal_repr(configuration[axis.name])
        )
    assert type(configuration["depth"]) is int
    assert type(configuration["temperature"]) is float


@pytest.mark.parametrize("method", SPACE_FILLING)
def test_a_configuration_depends_on_seed_and_number_alone(method: str) -> None:
    few, many = drawn(method, 5, 4), drawn(method, 5, 64)
    first = [designed_configuration(few, number) for number in range(4)]
    assert [designed_configuration(many, number) for number in reversed(range(4))] == first[::-1]
    assert designed_configuration(drawn(method, 6), 0) != first[0]
    assert len({str(configuration) for configuration in first}) == 4


@pytest.mark.parametrize("method", SPACE_FILLING)
def test_a_baseline_comes_first_and_moves_the_others_by_one(method: str) -> None:
    study = drawn(method, baseline=BASELINE)
    plain = drawn(method)
    assert designed_configuration(study, 0) == BASELINE
    for number in range(5):
        assert designed_configuration(study, number + 1) == designed_configuration(plain, number)


def test_sobol_is_scipys_scrambled_sobol_sequence() -> None:
    space = {"alpha": {"min": 0, "max": 1}, "beta": {"min": 0, "max": 1}}
    study = make_study(parameters=space, search={"method": "sobol", "seed": 3})
    points = [list(designed_configuration(study, number).values()) for number in range(8)]
    np.testing.assert_array_equal(points, qmc.Sobol(2, scramble=True, rng=3).random(8))


def test_logarithmic_draws_are_even_in_the_logarithm() -> None:
    study = drawn("sobol")
    betas = [float(designed_configuration(study, number)["beta"]) for number in range(64)]
    middle = (0.025 * 8.5) ** 0.5
    assert sum(beta < middle for beta in betas) == 32


def test_decimal_steps_are_the_numbers_that_a_reader_expects() -> None:
    study = make_study(
        parameters={"recipe.lr": {"min": 0.1, "max": 0.7, "q": 0.1}},
        search={"method": "grid"},
        budget={"epochs": 4},
    )
    assert [point["recipe.lr"] for point in all_configurations(study)] == [
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
    ]


def test_a_search_that_learns_has_no_design_beyond_its_baseline() -> None:
    study = make_study(search={"method": "tpe", "baseline": {"alpha": 3}})
    assert designed_configuration(study, 0) == {"alpha": 3.0}
    with pytest.raises(ValueError, match="learns from results"):
        designed_configuration(study, 1)
