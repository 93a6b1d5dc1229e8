"""torch.compile of a student's step, refused in one sentence where its tools are missing."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from typing import Any

import torch

from kdscale.errors import UserError
from kdscale.training._spec import RecipeSpec
from kdscale.training._step import Step

_WITH_GRAPHS = ("reduce-overhead", "max-autotune")


def compile_step(step: Step, recipe: RecipeSpec, device: torch.device) -> None:
    """Makes a step compile itself when it first runs.

    Args:
        step: The step.
        recipe: Its recipe, which says how.
        device: Where it runs.

    Raises:
        UserError: If the compiler that torch.compile needs there is missing.
    """
    if reason := _missing(device):
        raise UserError(f"recipe.compile: {reason} (or write compile: false)")
    if isinstance(recipe.compile, str):
        step.compile(mode=recipe.compile)
    else:
        step.compile()


def begin_compiled_step(recipe: RecipeSpec) -> None:
    """Lets CUDA graphs reuse the memory of the step before: nothing of it is read any more."""
    if recipe.compile in _WITH_GRAPHS:
        begin: Any = torch.compiler.cudagraph_mark_step_begin
        begin()


def _missing(device: torch.device) -> str:
    """Returns what torch.compile lacks; empty if nothing. It calls the tools that these name."""
    if device.type != "cpu" and find_spec("triton") is None:
        return "torch.compile needs Triton on a GPU, which is not installed: install triton"
    variable, usual = ("CXX", "g++") if device.type == "cpu" else ("CC", "gcc")
    if sys.platform == "darwin":
        usual = "clang++"
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler) is None:
        return (
            f"torch.compile needs a C++ compiler, but there is no {compiler}: "
            f"install it, or name another in {variable}"
        )
    return ""
