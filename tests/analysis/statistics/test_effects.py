from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import optuna
import pytest

from kdscale.analysis.statistics import MEASURES, NO_EFFECT, Result, Results, design, effects
from kdscale.analysis.statistics._fanova import fanova
from kdscale.analysis.statistics._gp_sobol import gp_sobol
from kdscale.analysis.statistics._measures import ped_anova, rbd_fast
from kdscale.records import Value

from .tables import mapped

UNIVARIATE = ("delta", "pawn", "rbd_fast")


def study(
    surface: Callable[[np.ndarray], float], n: int = 40, rng: int = 0, sd: float = 0.1
) -> Results:
    draw = np.random.default_rng(rng)
    points = draw.random((n, 3))
    return Results(
        tuple(
            Result(
                number,
                0,
                dict(zip(("alpha", "beta", "depth"), point.tolist(), strict=True)),
                float(surface(point) + draw.normal(0.0, sd)),
            )
            for number, point in enumerate(points)
        ),
        "maximize",
        ("alpha", "beta", "depth"),
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_the_one_that_matters_is_found(measure: str) -> None:
    found = effects(study(lambda x: 3.0 * x[0], n=60), measure, resamples=20)
    told = {one.parameters for one in found if one.detectable}
    assert told == {("alpha",)}
    for one in found:
        assert one.low <= one.excess <= one.high
        assert (one.verdict == NO_EFFECT) == (one.parameters != ("alpha",)) or (
            one.measure in ("sobol_pair", "fanova_pair")
        )


@pytest.mark.parametrize("measure", ["delta", "rbd_fast"])
def test_of_noise_nothing_is_claimed(measure: str) -> None:
    claims = [
        any(one.detectable for one in effects(study(lambda _: 0.0, rng=rng), measure, resamples=40))
        for rng in range(30)
    ]
    assert np.mean(claims) <= 0.125


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_scores_have_no_importance(measure: str) -> None:
    # Optuna's PED-ANOVA would say 1 / n for each hyperparameter.
    for one in effects(study(lambda _: 70.0, sd=0.0), measure, resamples=20):
        assert one.importance == pytest.approx(0.0, abs=1e-9)
        assert one.verdict == NO_EFFECT


def test_optuna_agrees_where_it_can_be_asked() -> None:
    _, x, y = design(study(lambda x: x[0]))
    assert ped_anova(x, y).argmax() == 0
    assert ped_anova(x, np.zeros(len(y))).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("n", [12, 60])
def test_fanova_is_optunas(n: int) -> None:
    _, x, y = design(study(lambda x: 3.0 * x[0] + x[1] * x[2], n=n))
    unit = optuna.distributions.FloatDistribution(0.0, 1.0)
    asked = optuna.create_study()
    asked.add_trials(
        [
            optuna.create_trial(
                params=dict(zip("abc", row, strict=True)),
                distributions=dict.fromkeys("abc", unit),
                value=score,
            )
            for row, score in zip(x.tolist(), y.tolist(), strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=16, seed=0)
    theirs = evaluator.evaluate(asked, params=["a", "b", "c"])
    np.testing.assert_allclose(fanova(x, y)[:3], [theirs[name] for name in "abc"], rtol=1e-9)


def test_fanova_shares_add_up_to_the_whole() -> None:
    # Of two hyperparameters nothing is left beside the two main effects and the interaction.
    _, x, y = design(study(lambda x: x[0] * x[1]))
    assert fanova(x[:, :2], y).sum() == pytest.approx(1.0)
    assert fanova(x, np.zeros(len(y))).tolist() == [0.0] * 6


def test_first_order_share_is_the_share_of_the_variance() -> None:
    results = study(lambda x: x[0] + 0.5 * x[1], n=400, sd=0.0)
    _, x, y = design(results)
    np.testing.assert_allclose(rbd_fast(x, y), [0.8, 0.2, 0.0], atol=0.1)
    np.testing.assert_allclose(gp_sobol(x, y), [0.8, 0.2, 0, 0.8, 0.2, 0, 0, 0, 0], atol=0.08)


def test_an_interaction_is_found_and_named() -> None:
    # (2a - 1)(2b - 1): no main effect, the pair has all of the variance.
    results = study(lambda x: (2 * x[0] - 1) * (2 * x[1] - 1), n=80, sd=0.05)
    _, x, y = design(results)
    np.testing.assert_allclose(gp_sobol(x, y), [0, 0, 0, 1, 1, 0, 1, 0, 0], atol=0.12)
    told = [one for one in effects(results, "sobol", resamples=20) if one.detectable]
    assert ("sobol_pair", ("alpha", "beta")) in {(one.measure, one.parameters) for one in told}


@pytest.mark.parametrize("measure", UNIVARIATE)
def test_a_hyperparameter_told_twice_has_its_effect_twice(measure: str) -> None:
    results = study(lambda x: x[0])
    twice = mapped(
        results,
        lambda row: replace(row, parameters={**row.parameters, "again": row.parameters["alpha"]}),
    )
    twice = replace(twice, names=("alpha", "beta", "depth", "again"))
    alone = {one.parameters: one.importance for one in effects(results, measure, resamples=20)}
    found = {one.parameters: one.importance for one in effects(twice, measure, resamples=20)}
    assert found[("again",)] == found[("alpha",)] == alone[("alpha",)]


@pytest.mark.parametrize("measure", UNIVARIATE)
def test_order_and_monotone_relabelling_do_not_matter(measure: str) -> None:
    results = study(lambda x: x[0], n=20)
    expected = effects(results, measure, resamples=20)
    backwards = Results(results.rows[::-1], results.goal, results.names)
    assert effects(backwards, measure, resamples=20) == expected

    def logarithmic(row: Result) -> Result:
        changed: dict[str, Value] = {
            name: float(np.exp(9.0 * float(value))) for name, value in row.parameters.items()
        }
        return replace(row, parameters=changed)

    relabelled = mapped(results, logarithmic)
    assert effects(relabelled, measure, resamples=20) == expected


def test_what_does_not_vary_and_what_is_text() -> None:
    rows = tuple(
        Result(number, 0, {"a": number % 3, "b": 1.0, "c": "xyz"[number % 3]}, float(number % 3))
        for number in range(12)
    )
    names, x, y = design(Results(rows, "minimize", ("a", "b", "c")))
    assert names == ("a", "c")
    np.testing.assert_allclose(x[:3], [[1 / 6, 1 / 6], [0.5, 0.5], [5 / 6, 5 / 6]])
    assert y[0] > y[1] > y[2]


def test_few_configurations_have_no_effects() -> None:
    assert effects(study(lambda x: x[0], n=7), "pawn") == ()
    assert effects(Results((), "maximize"), "pawn") == ()
    with pytest.raises(ValueError, match="resamples must be >= 20, but got 19"):
        effects(study(lambda x: x[0]), "pawn", resamples=19)


def test_libraries_leave_the_callers_state_alone(capsys: pytest.CaptureFixture[str]) -> None:
    form, state = warnings.formatwarning, np.random.get_state()[1]  # noqa: NPY002
    effects(study(lambda x: x[0], n=20), "delta", resamples=20)
    assert warnings.formatwarning is form
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert capsys.readouterr() == ("", "")
