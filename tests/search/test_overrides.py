from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.errors import StudyFileError
from kdscale.search._apply_overrides import apply_overrides
from kdscale.search._overrides import OverrideError, Sweep, parse_override

from .studies import load_data, study_data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Hydra 1.3, "Basic Override syntax"
        ("x=10", 10),
        ("x=-20", -20),
        ("x=1_000_000", 1_000_000),
        ("x=3.14", 3.14),
        ("x=-10e6", -10e6),
        ("x=1e-3", 1e-3),
        ("x=-inf", -math.inf),
        ("x=007", "007"),
        ("x=null", None),
        ("x=NULL", None),
        ("x=TrUe", True),
        ("x=False", False),
        ("x=oompa10", "oompa10"),
        ("x=foo.bar", "foo.bar"),
        ("x=", ""),
        ("x=hello world", "hello world"),
        ("x=    hello world    ", "hello world"),
        ('x="hello there"', "hello there"),
        (r'x="escaped \"double quote\""', 'escaped "double quote"'),
        (r'x="the path is C:\\\"some folder\"\\"', 'the path is C:\\"some folder"\\'),
        (r"x='a\b'", r"a\b"),
        ('x="1,2,3"', "1,2,3"),
        ('x="10"', "10"),
        ("x='{a:10} ${xyz}'", "{a:10} ${xyz}"),
        (r"x=job\{a\=1\,b\=2\,c\=3\}", "job{a=1,b=2,c=3}"),
        (r"x=A\[B", "A[B"),
        (r"x=\ a\ ", " a "),
        ("x=sqlite:///studies.db", "sqlite:///studies.db"),
        ("x=[1,2,3]", [1, 2, 3]),
        ("x=[a,[b,[c]]]", ["a", ["b", ["c"]]]),
        ("x=[]", []),
        ("x={a:10,b:{c:30, d: foo}}", {"a": 10, "b": {"c": 30, "d": "foo"}}),
        # "Extended Override syntax"
        ("x=a,b", Sweep({"values": ["a", "b"]})),
        ('x="a,b","c,d"', Sweep({"values": ["a,b", "c,d"]})),
        ("x=choice(3,5,7,9)", Sweep({"values": [3, 5, 7, 9]})),
        ("x=choice( 3 , choice(5,a) )", Sweep({"values": [3, 5, "a"]})),
        ("x=range(3,10,2)", Sweep({"min": 3, "max": 9, "q": 2})),
        ("x=range(0,5)", Sweep({"min": 0, "max": 4, "q": 1})),
        ("x=range(5)", Sweep({"min": 0, "max": 4, "q": 1})),
        ("x=range(0,10,3.3)", Sweep({"min": 0.0, "max": 9.9, "q": 3.3})),
        ("x=range(0,0.3,0.1)", Sweep({"min": 0.0, "max": 0.2, "q": 0.1})),
        ("x=range(10,1,-3)", Sweep({"min": 4, "max": 10, "q": 3})),
        ("x=range(start=1,stop=2)", Sweep({"value": 1})),
        ("x=interval(0,14)", Sweep({"min": 0, "max": 14})),
        ("x=interval(0, end=1.5)", Sweep({"min": 0, "max": 1.5})),
        (
            "x=tag(log,interval(0.025,8.5))",
            Sweep({"min": 0.025, "max": 8.5, "distribution": "log_uniform_values"}),
        ),
        ("x=tag(int,interval(3,9))", Sweep({"min": 3, "max": 9, "q": 1})),
        (
            "x=tag(log,int,sweep=interval(1,8))",
            Sweep({"min": 1, "max": 8, "q": 1, "distribution": "q_log_uniform_values"}),
        ),
    ],
)
def test_values_follow_hydras_grammar(text: str, value: Any) -> None:
    override = parse_override(text)
    assert (override.action, override.key) == ("change", "x")
    assert override.value == value
    assert type(override.value) is type(value)


@pytest.mark.parametrize(
    ("text", "action", "key", "value", "bare"),
    [
        ("+a.b=1", "add", "a.b", 1, False),
        ("++a.b=1", "force", "a.b", 1, False),
        ("~a.b", "remove", "a.b", None, True),
        ("~a.b=1", "remove", "a.b", 1, False),
        ("objective.methods.0.depth=3", "change", "objective.methods.0.depth", 3, False),
    ],
)
def test_actions_follow_hydras_grammar(
    text: str, action: str, key: str, value: Any, bare: bool
) -> None:
    override = parse_override(text)
    assert (override.action, override.key, override.value, override.bare) == (
        action,
        key,
        value,
        bare,
    )


@pytest.mark.parametrize(
    ("text", "rule", "hint"),
    [
        ("", "must be KEY=VALUE", "alpha=interval(0,14)"),
        ("=3", "must be KEY=VALUE", ""),
        ("a b=3", "must be KEY=VALUE", ""),
        ("alpha", "must give the key a value", "write alpha=VALUE"),
        ("+alpha", "must give the key a value", ""),
        ("x=A[B", "instead of [ at character 4", "quote"),
        ("x=[1,2", "must have ] instead of the end", ""),
        ("x={a}", "instead of }", ""),
        ("x=1,", "must have a value instead of the end", ""),
        ("x=a=b", "instead of = at character 4", "quote"),
        ('x="abc', "must close the quote", ""),
        ("x=intervall(0,1)", "intervall is none", 'did you mean "interval"?'),
        ("x=glob(*)", "must call a function that searches", "choice, range, interval, tag"),
        ("x=interval(1)", "must call interval(START, END)", ""),
        ("x=interval(a,b)", "must call interval(START, END)", ""),
        ("x=interval(start=1,2)", "must call interval(START, END)", ""),
        ("x=interval(start=1,start=2)", "must call interval(START, END)", ""),
        ("x=range(1,1)", "a range's stop is not part of it", ""),
        ("x=range(1,inf)", "must call range(START, STOP, STEP)", ""),
        ("x=range(1,2,0)", "must call range(START, STOP, STEP)", ""),
        ("x=choice()", "must call choice(VALUE, VALUE, ...)", ""),
        ("x=tag(lgo,interval(1,2))", "known tag, but got lgo", 'did you mean "log"?'),
        ("x=tag(log,choice(1,2))", "must tag an interval or a range", ""),
        ("x=tag(int,interval(0.5,2))", "whole numbers with tag int", ""),
        ("x=tag(log,3)", "must call tag(log, interval(START, END))", ""),
        ("x=tag()", "must call tag(log, interval(START, END))", ""),
    ],
)
def test_broken_overrides_say_what_they_must_be(text: str, rule: str, hint: str) -> None:
    with pytest.raises(OverrideError) as error:
        parse_override(text)
    assert rule in error.value.rule
    assert hint in error.value.hint


def written(value: Any) -> str:
    """Returns a value in Hydra's grammar."""
    if isinstance(value, Sweep):
        return f"choice({','.join(map(written, value.parameter['values']))})"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {written(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        escaped, slashes = "", 0
        for character in value:
            escaped += "\\" * (slashes + 1) + '"' if character == '"' else character
            slashes = slashes + 1 if character == "\\" else 0
        return f'"{escaped}{slashes * chr(92)}"'
    constants = {None: "null", True: "true", False: "false"}
    return constants[value] if value is None or isinstance(value, bool) else repr(value)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.text("\\\"'(),[]{}=: \t")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.from_regex(r"[A-Za-z_]\w*", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES | st.lists(SCALARS, min_size=1, max_size=4).map(lambda v: Sweep({"values": v})))
def test_what_is_written_is_read(value: Any) -> None:
    assert parse_override(f"task.x={written(value)}").value == value


@given(st.text(max_size=30) | st.text("()[]{}=,:'\"\\~+.ae0 ", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    for override in (text, f"x={text}", f"x=tag({text})"):
        with suppress(OverrideError):
            assert override.startswith(parse_override(override).text)


STUDY = study_data(
    objective={
        "methods": [{"method": "kd"}, {"method": "ldrld", "temperature": 4, "depth": 7}],
    },
    task={
        "data": {"name": "icons100", "augmentation": {"flip": False}},
        "teacher": {"model": "resnet8"},
        "student": {"model": "resnet8"},
        "recipe": {"lr": 0.2, "weight_decay": 0.001},
    },
    rungs={"first": 2},
)


def overridden(folder: Path, *overrides: str) -> Any:
    return load_data(STUDY, folder, *overrides)


def test_fields_change_are_added_merged_and_removed(tmp_path: Path) -> None:
    study = overridden(
        tmp_path,
        "budget.trials=20",
        "task.recipe.lr=0.1",
        "+task.recipe.warmup_epochs=1",
        "++seeds=[4,5]",
        "task.data={train_images: 500}",
        "task.data.augmentation={crop_padding: 2}",
        "objective.methods.0.temperature=3",
        "storage.url='sqlite:///a=b.db'",
        "~rungs",
        "~task.recipe.weight_decay=0.001",
    )
    assert study.budget.trials == 20
    assert (study.task.recipe.lr, study.task.recipe.warmup_epochs) == (0.1, 1)
    assert study.task.recipe.weight_decay == 5e-4
    assert study.seed_list == (4, 5)
    assert study.task.data.train_images == 500
    augmentation = study.task.data.augmentation
    assert (augmentation.crop_padding, augmentation.flip) == (2, False)
    assert study.objective.methods[0].temperature == 3
    assert study.storage.url == "sqlite:///a=b.db"
    assert study.rungs is None


def test_other_names_are_parameters(tmp_path: Path) -> None:
    study = overridden(
        tmp_path,
        "alpha=interval(0,14)",
        "beta=tag(log,interval(0.025,8.5))",
        "kd.temperature=choice(1,2)",
        "recipe.momentum=0.5",
        "parameters.kd.weight={min: 0, max: 2}",
        "kd.weight.max=3",
        "parameters.alpha.max=12",
    )
    spelled = {
        name: parameter.model_dump(exclude_none=True)
        for name, parameter in study.parameters.items()
    }
    assert spelled == {
        "alpha": {"min": 0, "max": 12},
        "beta": {"min": 0.025, "max": 8.5, "distribution": "log_uniform_values"},
        "kd.temperature": {"values": (1, 2)},
        "recipe.momentum": {"value": 0.5},
        "kd.weight": {"min": 0, "max": 3},
    }


def test_a_plain_value_fixes_a_parameter_and_a_tilde_removes_it(tmp_path: Path) -> None:
    study = overridden(tmp_path, "alpha=9.5", "beta=interval(1,2)")
    assert list(study.distributions()) == ["beta"]
    assert study.resolve({"beta": 1}).terms[1].hyperparameters["alpha"] == 9.5
    study = overridden(tmp_path, "~alpha", "beta=interval(1,2)")
    assert study.resolve({"beta": 1}).terms[1].hyperparameters["alpha"] == 10.5


def test_the_command_line_wins_over_what_the_file_fixes(tmp_path: Path) -> None:
    study = overridden(
        tmp_path, "depth=choice(3,5)", "ldrld.temperature=2", "recipe.lr=interval(0.1,1)"
    )
    resolved = study.resolve({"alpha": 2, "depth": 3, "recipe.lr": 0.5})
    assert resolved.terms[1].hyperparameters["temperature"] == 2.0
    assert resolved.terms[1].hyperparameters["depth"] == 3
    assert (resolved.recipe.lr, resolved.recipe.weight_decay) == (0.5, 0.001)


@pytest.mark.parametrize(
    ("text", "path", "rule", "hint"),
    [
        ("alpha=interval(14,0)", "parameters.alpha.min", "must be < max (0)", "swap"),
        ("alhpa=interval(0,1)", "parameters.alhpa", "a hyperparameter", 'did you mean "alpha"?'),
        ("budgte.trials=2", "parameters.budgte.trials", "", 'did you mean "budget.trials"?'),
        ("budget.trails=2", "budget.trails", "must be a known key", 'did you mean "trials"?'),
        ("budget.trials=many", "budget.trials", "must be a whole number", ""),
        ("budget.trials=choice(1,2)", "", "must be a plain value", ""),
        ("task.recipe.lr=interval(0,1)", "", "only parameters are searched", "recipe.lr=..."),
        ("alpha=[1,2]", "", "must be one value or a sweep", "alpha=choice(1,2)"),
        ("alpha=null", "", "must be a value or a sweep", "~alpha removes"),
        ("alpha=choice(1,-2)", "parameters.alpha.values.1", "must be >= 0", ""),
        ("+seeds=1", "", "", ""),
        ("+rungs.first=3", "", "must add something new", "write ++rungs.first=3"),
        ("~tracking", "", "must remove something that the file has", ""),
        ("~bugdet", "", "must remove something that the file has", ""),
        ("~budget.trials=3", "", "which is 8", ""),
        ("name.first=x", "", "must name something in name", ""),
        ("objective.methods.7.depth=3", "", "7 is not there", ""),
        ("objective.methods.first.depth=3", "", "must name something in objective.methods", ""),
        ("objective.methods.2={method: kd}", "", "entry of the list: 0 to 1", ""),
        ("parameters=3", "", "must name a parameter", ""),
    ],
)
def test_a_problem_of_an_override_names_it(
    tmp_path: Path, text: str, path: str, rule: str, hint: str
) -> None:
    if not rule and not hint:
        assert overridden(tmp_path, text).seed_list == (0,)
        return
    with pytest.raises(StudyFileError) as error:
        overridden(tmp_path, text)
    [problem] = error.value.problems
    assert (problem.where, problem.path) == (text, path)
    assert rule in problem.rule
    assert hint in problem.hint


@pytest.mark.parametrize(
    "text",
    [
        f"++task.data={'[' * 5000}",
        f"++task.data={'[' * 300}{']' * 300}",
        f"++task.data={'{a: ' * 64}1{'}' * 64}",
        f"++task.data={'choice(' * 5000}",
        f"++task{'.a' * 5000}=1",
    ],
    ids=["unclosed", "lists", "mappings", "functions", "keys"],
)
def test_an_override_that_is_nested_too_deep_is_refused(text: str) -> None:
    applied = apply_overrides({"task": {}}, [text], ["task"])
    assert applied.data == {"task": {}}
    [problem] = applied.problems
    assert problem.rule == "must be nested at most 64 levels deep"


def test_a_study_field_wins_over_a_parameter_of_its_name(tmp_path: Path) -> None:
    assert overridden(tmp_path, "name=other").name == "other"
