"""Study files made for tests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from kdscale.search import Study, load_study
from kdscale.search._yaml import dump_yaml

DATA: dict[str, Any] = {
    "name": "small",
    "task": {
        "data": {"name": "icons100"},
        "teacher": {"model": "resnet8"},
        "student": {"model": "resnet8"},
    },
    "objective": {"methods": [{"method": "ldrld"}]},
    "parameters": {"alpha": {"min": 2, "max": 14}},
    "budget": {"trials": 8, "epochs": 8},
}


def study_data(**sections: Any) -> dict[str, Any]:
    """Returns a small study's data with some sections replaced; None leaves one out."""
    data = copy.deepcopy(DATA) | sections
    return {name: section for name, section in data.items() if section is not None}


def make_study(**sections: Any) -> Study:
    """Returns a small study with some sections replaced."""
    return Study.model_validate(study_data(**sections))


def load_text(text: str, folder: Path, overrides: tuple[str, ...] = ()) -> Study:
    """Returns the study of a file with this text."""
    path = folder / "study.yaml"
    path.write_text(text)
    return load_study(path, overrides)


def load_data(data: dict[str, Any], folder: Path, *overrides: str) -> Study:
    """Returns the study of a file with this data."""
    return load_text(dump_yaml(data), folder, overrides)
