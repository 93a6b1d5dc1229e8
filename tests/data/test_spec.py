from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from kdscale.data import AugmentationSpec, Cifar100Spec, DataSpec, Icons100Spec, ImageFolderSpec

ADAPTER: TypeAdapter[DataSpec] = TypeAdapter(DataSpec)


def test_the_name_chooses_the_spec() -> None:
    assert ADAPTER.validate_python({"name": "icons100"}) == Icons100Spec()
    spec = ADAPTER.validate_python({"name": "cifar100", "root": "~/data", "train_images": 500})
    assert spec == Cifar100Spec(root=Path("~/data"), train_images=500)
    spec = ADAPTER.validate_python(
        {"name": "image_folder", "root": "x", "image_size": 64, "augmentation": {"flip": False}}
    )
    assert isinstance(spec, ImageFolderSpec)
    assert spec.augmentation == AugmentationSpec(crop_padding=4, flip=False)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "cifar1000"},
        {"name": "cifar10"},
        {"name": "icons100", "root": "x"},
        {"name": "icons100", "validation_fraction": 0.2},
        {"name": "icons100", "image_size": 64},
        {"name": "icons100", "train_images": 0},
        {"name": "icons100", "augmentation": {"crop_padding": -1}},
        {"name": "icons100", "augmentation": {"mixup": True}},
        {"name": "fashion_mnist", "validation_fraction": 0},
        {"name": "image_folder", "root": "x", "validation_fraction": 1},
    ],
)
def test_what_breaks_a_rule_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(data)


def test_every_field_is_described_in_the_json_schema() -> None:
    definitions = ADAPTER.json_schema()["$defs"]
    assert len(definitions) == 6
    for name, definition in definitions.items():
        assert definition["description"], name
        for field, schema in definition["properties"].items():
            assert schema["description"], f"{name}.{field}"
