import math
import re

import pytest

from kdscale.errors import UserError
from kdscale.losses import METHODS, Hyperparameter, Method
from kdscale.records import Value

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
def test_defaults_and_searched_ranges_obey_their_own_rules(method: Method) -> None:
    assert METHODS[method.name] is method
    assert re.search(r"\b(19|20)\d\d\b|arXiv", method.source)
    for item in method.hyperparameters:
        assert item.broken_rule(item.default) == ""
        assert item.help
        for bound in item.search or ():
            assert item.broken_rule(bound) == ""


def test_defaults_are_the_published_ones() -> None:
    assert METHODS["ldrld"].complete({}) == {
        "alpha": 10.5,
        "beta": 7.0,
        "depth": 7,
        "temperature": 4.0,
        "include_group": True,
    }
    assert METHODS["rsd"].complete({}) == {
        "lambda": 0.1,
        "kappa": 0.01,
        "gamma": 2,
        "variant": "embedding",
    }
    assert METHODS["kd"].complete({}) == {"temperature": 4.0}
    assert METHODS["dkd"].complete({}) == {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}


@pytest.mark.parametrize(
    ("default", "value", "rule"),
    [
        (1.0, 2, ""),
        (1.0, 0.0, "must be > 0"),
        (1.0, -1.0, "must be > 0"),
        (1.0, 10.5, "must be <= 10"),
        (1.0, math.nan, "must be a finite number"),
        (1.0, True, "must be a finite number"),
        (1.0, "1", "must be a finite number"),
        (1, 2.0, ""),
        (1, 2.5, "must be a whole number"),
        (True, False, ""),
        (True, 1, "must be true or false"),
        ("a", "b", ""),
        ("a", "c", "must be one of a, b"),
    ],
)
def test_rules(default: Value, value: Value, rule: str) -> None:
    item = Hyperparameter("x", default, "", low=0, high=10, low_open=True, choices=("a", "b"))
    assert item.broken_rule(value) == rule


def test_complete_gives_each_value_its_type() -> None:
    complete = METHODS["ldrld"].complete({"alpha": 3, "depth": 5.0})
    assert (complete["alpha"], type(complete["alpha"])) == (3.0, float)
    assert (complete["depth"], type(complete["depth"])) == (5, int)


def test_complete_reports_every_problem_at_once() -> None:
    with pytest.raises(UserError) as caught:
        METHODS["ldrld"].complete({"alpa": 3, "depth": 1, "temperature": 0})
    message = str(caught.value)
    assert 'ldrld has no hyperparameter "alpa" (did you mean "alpha"?)' in message
    assert "ldrld: depth must be >= 2, but got 1" in message
    assert "ldrld: temperature must be > 0, but got 0" in message
