from __future__ import annotations

import ast
from pathlib import Path

import kdscale

PACKAGE = Path(kdscale.__file__).parent
GATES = {"load_test", "read_icons100_test", "read_fashion_mnist_test", "read_cifar10_test"}
GATES |= {"read_cifar100_test", "read_image_folder_test"}


def names_in(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.name.rsplit(".", 1)[-1] for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names


def test_only_analysis_can_reach_the_test_split() -> None:
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if names_in(path) & GATES
    }
    assert "data" in users
    assert users <= {"data", "analysis"}
