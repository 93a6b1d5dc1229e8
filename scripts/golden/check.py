"""Compares what kdscale computes with a file of golden values."""

from __future__ import annotations

import ast
import json
import math
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden import TABLE
from golden._entry import Entry


class BadFileError(Exception):
    """The file is not what it should be; the message says where."""


def read_cases(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFileError(error.strerror or str(error)) from None
    except ValueError as error:
        raise BadFileError(f"must be JSON, but {error}") from None
    cases = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(cases, list) or not cases:
        raise BadFileError('must be an object with a list "cases" that is not empty')
    for number, case in enumerate(cases):
        require_case(case, f"cases[{number}]")
    return cases


def require_case(case: Any, where: str) -> None:
    kinds = {"id": str, "method": str, "variant": str, "inputs": dict, "params": dict, "grad": dict}
    if not isinstance(case, dict):
        raise BadFileError(f"{where} must be an object")
    for key, kind in kinds.items():
        if not isinstance(case.get(key), kind):
            raise BadFileError(f'{where}: "{key}" must be there and be {kind.__name__}')
    if not is_number(case.get("value")):
        raise BadFileError(f'{where} ({case["id"]}): "value" must be there and be a number')


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_entry(case: Mapping[str, Any]) -> Entry | None:
    first_word = case["variant"].split(" ")[0]
    for entry in TABLE:
        if entry.golden == case["method"] and entry.variant in ("", first_word, case["variant"]):
            return entry
    return None


def disagreements(case: Mapping[str, Any], entry: Entry) -> list[str]:
    """Returns one line for each number that the function does not reproduce."""
    if missing := set(entry.inputs.split()) - set(case["inputs"]):
        return [f"inputs must hold {entry.inputs}, but there is no {' '.join(sorted(missing))}"]
    if set(case["params"]) != set(entry.params.split()):
        return [f"params must be {entry.params}, but got {' '.join(case['params']) or 'none'}"]
    try:
        inputs = {name: read_input(spec) for name, spec in case["inputs"].items()}
    except (ArithmeticError, LookupError, SyntaxError, TypeError, ValueError) as error:
        raise BadFileError(f"{case['id']}: bad input, {error!r}") from None
    for name in case["grad"]:
        if name not in inputs or not inputs[name].is_floating_point():
            raise BadFileError(f'{case["id"]}: gradient of "{name}", which is no float input')
        inputs[name].requires_grad_()
    try:
        value = entry.function(inputs, case["params"])
        if case["grad"]:
            value.backward()
    except (RuntimeError, TypeError, ValueError) as error:
        return [f"raised {type(error).__name__}: {error}"]
    problems = compare_extras(case, entry, inputs)
    problems += compare("value", case["value"], value.item(), relative=entry.relative)
    for name, expected in case["grad"].items():
        gradient = inputs[name].grad
        flat = (torch.zeros_like(inputs[name]) if gradient is None else gradient).flatten()
        try:
            problems += compare_gradient(f"grad.{name}", expected, flat)
        except (LookupError, TypeError) as error:
            raise BadFileError(f"{case['id']}: bad gradient of {name}, {error!r}") from None
    return problems


def compare_extras(
    case: Mapping[str, Any], entry: Entry, inputs: Mapping[str, Tensor]
) -> list[str]:
    """Returns one line for each number under "values" that the function does not reproduce."""
    if entry.extras is None:
        return []
    problems = []
    for name, got in entry.extras(inputs, case["params"]).items():
        wanted = torch.tensor(case["values"][name], dtype=torch.float64).flatten()
        for index, (want, have) in enumerate(zip(wanted, got.flatten(), strict=True)):
            relative = max(entry.relative, 1e-9)
            problems += compare(f"{name}[{index}]", want.item(), have.item(), relative=relative)
    return problems


def compare_gradient(name: str, expected: Mapping[str, Any], got: Tensor) -> list[str]:
    abs_sum, l2 = expected["abs_sum"], expected["l2"]
    problems = [
        *compare(f"{name}.sum", expected["sum"], got.sum().item(), absolute=1e-9 * abs_sum),
        *compare(f"{name}.abs_sum", abs_sum, got.abs().sum().item(), relative=1e-7),
        *compare(f"{name}.l2", l2, got.norm().item(), relative=1e-7),
    ]
    for index, want in enumerate(expected["first5"]):
        problems += compare(f"{name}[{index}]", want, got[index].item(), absolute=1e-9 * l2)
    largest = int(got.abs().argmax())
    if expected["argmax_unique"] and largest != expected["argmax_abs_index"]:
        want = expected["argmax_abs_index"]
        problems.append(f"{name}: largest at index {want} wanted, got {largest}")
    return problems


def compare(
    name: str, wanted: float, got: float, *, relative: float = 0.0, absolute: float = 0.0
) -> list[str]:
    # The floor is float64's rounding noise, for numbers that are 0 by symmetry.
    tolerance = max(relative * abs(wanted), absolute, 1e-14)
    if abs(got - wanted) <= tolerance:  # False for nan
        return []
    difference = abs(got - wanted)
    return [
        f"{name}: wanted {wanted:.15g}, got {got:.15g} "
        f"(difference {difference:.2g}, tolerance {tolerance:.2g})"
    ]


def read_input(spec: Any) -> Tensor:
    """Returns the tensor that a formula with shape, axes and dtype describes, or a literal list."""
    if isinstance(spec, list):
        return torch.tensor(spec, dtype=torch.int64)
    shape = tuple(spec["shape"])
    names: dict[str, Any] = dict(zip(spec["axes"], np.indices(shape), strict=True))
    names["i"] = np.arange(math.prod(shape)).reshape(shape)
    values = evaluate(ast.parse(spec["formula"], mode="eval").body, names)
    return torch.tensor(np.broadcast_to(values, shape).astype(spec["dtype"]))


OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS = {"abs", "cos", "exp", "log", "sin", "sqrt", "tan", "tanh"}


def evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Returns a formula's value: arithmetic and np's functions only, so that no file runs code."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(left, names), evaluate(right, names))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(operand, names))
        case ast.Attribute(value=ast.Name(id="np"), attr="pi"):
            return np.pi
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="np"), attr=name), args=[argument], keywords=[]
        ) if name in FUNCTIONS:
            return getattr(np, name)(evaluate(argument, names))
    raise ValueError(f'formula must not hold "{ast.unparse(node)}"')
