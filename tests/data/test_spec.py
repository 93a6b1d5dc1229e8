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


def test_resized_crops_take_the_place_of_padded_ones() -> None:
    crops = AugmentationSpec.model_validate({"random_resized_crop": {"stored_crops": 4}})
    assert crops.crop_padding == 0
    assert crops == AugmentationSpec.model_validate(crops.model_dump())
    assert crops == AugmentationSpec.model_validate_json(crops.model_dump_json(), strict=True)
    assert AugmentationSpec().model_dump() == {"crop_padding": 4, "flip": True}


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
        {"name": "icons100", "augmentation": {"random_resized_crop": {}, "crop_padding": 4}},
        {"name": "icons100", "augmentation": {"random_resized_crop": {"scale": [0.5, 0.1]}}},
        {"name": "icons100", "augmentation": {"random_resized_crop": {"scale": [0, 1]}}},
        {"name": "icons100", "augmentation": {"random_resized_crop": {"ratio": [0, 1]}}},
        {"name": "icons100", "augmentation": {"random_resized_crop": {"stored_crops": 0}}},
        {"name": "fashion_mnist", "validation_fraction": 0},
        {"name": "image_folder", "root": "x", "validation_fraction": 1},
    ],
)
def test_what_breaks_a_rule_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(data)


def test_every_field_is_described_in_the_json_schema() -> None:
    definitions = ADAPTER.json_schema()["$defs"]
    assert len(definitions) == 7
    for name, definition in definitions.items():
        assert definition["description"], name
        for field, schema in definition["properties"].items():
            assert schema["description"], f"{name}.{field}"
