"""The house: who may import whom, what is public, and that it is all documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import kdscale

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "kdscale"
MODULES = sorted(HOUSE.rglob("*.py"))
MOST_LINES = 450

LAYERS = (
    ("urls",),
    ("errors", "outputs", "records", "outliers"),
    ("files", "racing"),
    ("losses", "models", "data"),
    ("training", "tracking"),
    ("search", "analysis"),
    ("terminal", "launch"),
    ("workflow",),
    ("tasks",),
    ("cli",),
)
"""Lowest first. A part imports from layers below its own, and nothing of its own layer."""

LAYER_OF = {part: level for level, parts in enumerate(LAYERS) for part in parts}
HEAVY = {"ray": ("search", "launch"), "mlflow": ("tracking",)}
"""Libraries, and the parts that alone may know of them."""

COMES_WITH = {
    "PIL": "pillow",
    "annotated_types": "pydantic",
    "pydantic_core": "pydantic",
    "ruamel": "ruamel.yaml",
    "sklearn": "scikit-learn",
    "sqlalchemy": "optuna",
    "threadpoolctl": "scikit-learn",
}
"""Modules whose distribution has another name, or that belong to a dependency's interface."""


@dataclass(frozen=True)
class Import:
    """One imported module or name.

    Attributes:
        by: The importing file.
        module: The module, absolute.
        name: What is taken from it; empty for ``import module``.
        line: Where.
        when: ``module`` for an import at module level, ``typing`` under TYPE_CHECKING, ``call``
            inside a function.
    """

    by: Path
    module: str
    name: str
    line: int
    when: str

    @property
    def part(self) -> str:
        """The part of the house that imports: ``losses``, ``cli``; ``kdscale`` for the root."""
        return part_of(self.by)

    @property
    def target(self) -> str:
        """The part of the house that is imported; empty for other libraries and the root."""
        steps = (f"{self.module}.{self.name}" if self.module == "kdscale" else self.module).split(
            "."
        )
        return steps[1] if steps[0] == "kdscale" and len(steps) > 1 else ""

    @property
    def library(self) -> str:
        """The top-level module."""
        return self.module.split(".")[0]

    def __str__(self) -> str:
        return f"{self.by.relative_to(ROOT)}:{self.line} imports {self.module} {self.name}".rstrip()


def part_of(path: Path) -> str:
    first = path.relative_to(HOUSE).parts[0]
    return "kdscale" if first == "__init__.py" else first.removesuffix(".py")


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for path in MODULES for found in imports_of(path))


def imports_of(path: Path) -> Iterator[Import]:
    yield from _walk(ast.parse(path.read_text(encoding="utf-8")), path, "module")


def _walk(node: ast.AST, path: Path, when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(path, alias.name, "", child.lineno, when)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{path}:{child.lineno}: imports are absolute"
            for alias in child.names:
                yield Import(path, child.module or "", alias.name, child.lineno, when)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, path, "call")
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from _walk(ast.Module(child.body, []), path, "typing")
            yield from _walk(ast.Module(child.orelse, []), path, when)
        else:
            yield from _walk(child, path, when)


def test_every_part_of_the_house_has_its_layer() -> None:
    parts = {part_of(path) for path in MODULES} - {"kdscale"}
    assert parts == set(LAYER_OF)


def test_imports_run_one_way() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.target in LAYER_OF
        and found.target != found.part
        and not LAYER_OF[found.target] < LAYER_OF[found.part]
    ]
    assert not wrong


def test_the_rule_sees_imports_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import ray\n"
        "try:\n    import torch\nexcept ImportError:\n    pass\n"
        "class A:\n    import os\n    def f(self):\n        from mlflow.entities import Run\n"
    )
    found = {(one.module, one.name, one.when) for one in imports_of(path)}
    assert found == {
        ("typing", "TYPE_CHECKING", "module"),
        ("ray", "", "typing"),
        ("torch", "", "module"),
        ("os", "", "module"),
        ("mlflow.entities", "Run", "call"),
    }


def test_private_modules_stay_in_their_package() -> None:
    private = re.compile(r"kdscale\.(\w+)\._\w+")
    wrong = [
        str(found)
        for found in imports()
        if (inside := private.match(found.module)) and inside[1] != found.part
    ]
    assert not wrong


def test_losses_know_torch_alone() -> None:
    libraries = {found.library for found in imports() if found.part == "losses"}
    assert libraries - sys.stdlib_module_names == {"torch", "kdscale"}


@pytest.mark.parametrize("library", HEAVY)
def test_one_part_alone_knows(library: str) -> None:
    found = [one for one in imports() if one.library == library]
    assert {one.part for one in found} == set(HEAVY[library])
    at_import = {one.by.name for one in found if one.when == "module"}
    # They make subclasses of Ray's classes, know its errors or ask it: imported only in a call.
    assert at_import <= {
        "_searcher.py",
        "_scheduler.py",
        "_lane.py",
        "_deaths.py",
        "_places.py",
        "_nodes.py",
    }


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        ("_searcher", ["call"]),
        ("_scheduler", ["call", "call", "call"]),
        ("_lane", ["call"]),
        ("_places", ["call", "call", "typing"]),
        ("_nodes", ["module", "module"]),
    ],
)
def test_what_needs_ray_is_imported_only_when_a_sweep_runs(module: str, wanted: list[str]) -> None:
    found = [one for one in imports() if one.module == f"kdscale.search.{module}"]
    assert sorted(one.when for one in found) == wanted


def test_only_analysis_reads_the_test_set() -> None:
    for path in MODULES:
        if part_of(path) in ("analysis", "data"):
            continue
        names = {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Name | ast.Attribute)
        }
        names |= {found.name for found in imports_of(path)}
        assert "load_test" not in names, path
    users = {one.by.name for one in imports() if one.name == "load_test" and one.part == "analysis"}
    assert users == {"_final.py"}


def test_every_library_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {Requirement(text).name for text in project["dependencies"]}
    used = {found.library for found in imports()} - sys.stdlib_module_names - {"kdscale"}
    used = {COMES_WITH.get(library, library) for library in used}
    assert used <= declared


def packages() -> list[str]:
    found = pkgutil.walk_packages(kdscale.__path__, "kdscale.")
    return [info.name for info in found if info.ispkg]


@pytest.mark.parametrize("package", packages())
def test_a_package_lists_what_is_public(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    assert len(module.__all__) == len(set(module.__all__))
    assert not [name for name in module.__all__ if not hasattr(module, name)]
    assert not [name for name in module.__all__ if name.startswith("_")]
    for info in pkgutil.iter_modules(module.__path__):
        # A package has an __init__ of its own, which says what of it is public.
        assert info.ispkg or info.name.startswith("_"), f"{package}.{info.name} must be private"


@pytest.mark.parametrize("package", packages())
def test_what_is_public_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{package}.{name}"
        elif inspect.isclass(thing):
            about = thing.__dict__.get("__doc__") or ""
            # A dataclass without a docstring gets its signature for one.
            assert about, f"{package}.{name}"
            assert not about.startswith(f"{name}("), f"{package}.{name}"
            for member, value in vars(thing).items():
                if inspect.isfunction(value) and not member.startswith("_"):
                    assert inspect.getdoc(value), f"{package}.{name}.{member}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_module_says_what_it_is_and_is_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module begins with what it is"
    assert len(text.splitlines()) <= MOST_LINES


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "kdscale.__version__"}
    assert version("kdscale") == kdscale.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", kdscale.__version__)


def test_what_the_package_ships_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for pattern in project["tool"]["setuptools"]["package-data"]["kdscale"]:
        assert list(HOUSE.glob(pattern)), pattern
    for pattern in project["project"]["license-files"]:
        assert list(ROOT.glob(pattern)), pattern


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("kdscale.cli", {"torch", "ray", "mlflow", "optuna", "timm", "plotly"}),
        ("kdscale.workflow", {"ray", "mlflow", "timm", "plotly"}),
        ("kdscale.losses", {"ray", "mlflow", "optuna", "kdscale.models", "kdscale.data"}),
    ],
)
def test_an_import_stays_light(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not absent & set(ran.stdout.split())
