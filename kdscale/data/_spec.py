"""What a study file says about its data: pydantic models, told apart by ``name``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

_Share = Annotated[float, Field(gt=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]


def _rule_error(rule: str, hint: str = "") -> PydanticCustomError:
    """Returns the error of a broken rule, as study files tell them."""
    context: dict[str, Any] = {"rule": rule, "hint": hint, "at": ()}
    return PydanticCustomError("rule", "{rule}", context)


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RandomResizedCropSpec(_Spec):
    """A random part of the image, scaled to the image's size: torchvision's RandomResizedCrop."""

    scale: tuple[_Share, _Share] = (0.08, 1.0)
    """Smallest and largest area of the part, as a share of the image's."""

    ratio: tuple[_Positive, _Positive] = (3 / 4, 4 / 3)
    """Smallest and largest width of the part, divided by its height."""

    stored_crops: int | None = Field(None, ge=1)
    """Give each image so many crops, the same under every seed, of which an epoch draws one: so
    the teacher cache can hold what the teacher says to them, as in FKD. It changes the recipe, and
    the report says so. Default: a new crop in every epoch, and a live teacher."""

    @field_validator("scale", "ratio")
    @classmethod
    def _bounds_ascend(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] > bounds[1]:
            raise _rule_error("must be the smaller bound, then the larger one")
        return bounds


class AugmentationSpec(_Spec):
    """Random views of a training image: a crop in one of two ways, and mirroring."""

    random_resized_crop: RandomResizedCropSpec | None = Field(
        None, exclude_if=lambda spec: spec is None
    )
    """Take a random part of the image, as recipes for ImageNet do; ``{}`` for torchvision's bounds.
    Images are the squares of ``image_size``."""

    crop_padding: int = Field(
        default_factory=lambda data: 0 if data.get("random_resized_crop") else 4,
        ge=0,
        json_schema_extra={"default": 4},
    )
    """Pixels of zeros on each side before a random crop to the old size; 0 for no crop, and with
    ``random_resized_crop``."""

    flip: bool = True
    """Mirror left and right, every second time."""

    @field_validator("crop_padding")
    @classmethod
    def _crops_are_of_one_kind(cls, padding: int, info: ValidationInfo) -> int:
        if padding and info.data.get("random_resized_crop") is not None:
            raise _rule_error("must not be given with random_resized_crop", hint="remove it")
        return padding


class _DataSpec(_Spec):
    train_images: int | None = Field(None, ge=1)
    """Use only so many training images: a fixed, class-balanced choice. Default: all of them."""

    augmentation: AugmentationSpec = AugmentationSpec()
    """Random views of the training images; validation and test images are left as they are."""

    label_noise: float = Field(0.0, ge=0, lt=1, exclude_if=lambda share: share == 0)
    """Share of each class's training images that students see under a wrong label, any other class
    being equally likely. The choice is fixed, and a larger share keeps the errors of a smaller one.
    A teacher that the study trains, validation and test keep the right labels."""


class _CarvedSpec(_DataSpec):
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of each class's training images kept for validation. The choice is fixed: it depends
    on no seed of the study."""


class Icons100Spec(_DataSpec):
    """Icons-100, which ships with kdscale: 100 classes of icons, drawn by people."""

    name: Literal["icons100"] = "icons100"
    """icons100."""

    image_size: Literal[32] = 32
    """Height and width in pixels."""


class FashionMnistSpec(_CarvedSpec):
    """Fashion-MNIST: 10 classes of clothes, grey photos padded from 28x28 to 32x32."""

    name: Literal["fashion_mnist"] = "fashion_mnist"
    """fashion_mnist."""

    root: Path = Path("/usr/share/datasets/fashion-mnist")
    """Folder of the four idx.gz files; default: that of Debian's package dataset-fashion-mnist."""

    image_size: Literal[32] = 32
    """Height and width in pixels."""


class Cifar10Spec(_CarvedSpec):
    """CIFAR-10: 10 classes of small photos."""

    name: Literal["cifar10"] = "cifar10"
    """cifar10."""

    root: Path
    """Folder that holds cifar-10-python.tar.gz or the unpacked cifar-10-batches-py."""

    image_size: Literal[32] = 32
    """Height and width in pixels."""


class Cifar100Spec(_CarvedSpec):
    """CIFAR-100: 100 classes of small photos (the fine labels)."""

    name: Literal["cifar100"] = "cifar100"
    """cifar100."""

    root: Path
    """Folder that holds cifar-100-python.tar.gz or the unpacked cifar-100-python."""

    image_size: Literal[32] = 32
    """Height and width in pixels."""


class ImageFolderSpec(_CarvedSpec):
    """A folder of PNG and JPEG files: ``train/CLASS/*.png``, ``validation/...``, ``test/...``.

    Without a validation folder, ``validation_fraction`` of the training images are kept for it.
    """

    name: Literal["image_folder"] = "image_folder"
    """image_folder."""

    root: Path
    """Folder that holds train, test and perhaps validation."""

    image_size: int = Field(224, ge=8)
    """Height and width in pixels: the short side is scaled to it and the centre cut out."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of red, green and blue that inputs are normalised with; default: ImageNet's."""

    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Their standard deviation."""


DataSpec = Annotated[
    Icons100Spec | FashionMnistSpec | Cifar10Spec | Cifar100Spec | ImageFolderSpec,
    Field(discriminator="name"),
]
"""Any data set, as written under ``task.data`` in a study file."""
