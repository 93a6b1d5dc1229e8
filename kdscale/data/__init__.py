"""Data sets, their splits, and augmentation keyed by (seed, epoch, index)."""

from kdscale.data._augmentation import Augmentation
from kdscale.data._cache_quota import usable_bytes
from kdscale.data._load import load_data, load_test
from kdscale.data._order import epoch_order
from kdscale.data._spec import (
    AugmentationSpec,
    Cifar10Spec,
    Cifar100Spec,
    DataSpec,
    FashionMnistSpec,
    Icons100Spec,
    ImageFolderSpec,
    RandomResizedCropSpec,
)
from kdscale.data._split import ArraySplit, Split, fingerprint
from kdscale.data._strong import strong_views
from kdscale.data._task import TaskData, normalise
from kdscale.data._teacher_cache import (
    CacheType,
    Header,
    Part,
    TeacherCache,
    cache_key,
    entry_bytes,
    file_bytes,
)

__all__ = [
    "ArraySplit",
    "Augmentation",
    "AugmentationSpec",
    "CacheType",
    "Cifar10Spec",
    "Cifar100Spec",
    "DataSpec",
    "FashionMnistSpec",
    "Header",
    "Icons100Spec",
    "ImageFolderSpec",
    "Part",
    "RandomResizedCropSpec",
    "Split",
    "TaskData",
    "TeacherCache",
    "cache_key",
    "entry_bytes",
    "epoch_order",
    "file_bytes",
    "fingerprint",
    "load_data",
    "load_test",
    "normalise",
    "strong_views",
    "usable_bytes",
]
