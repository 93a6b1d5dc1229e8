"""Icons-100: 100 classes of 32x32 icons, shipped with kdscale.

What it is: icons drawn by people, from 124 open icon sets, most of them black on white (6% are
coloured). A class is an icon's name without what only says its style ("outline", "filled", "24"),
so labels are a little noisy: a "pin" may hold a map or a paper, "send" may be an arrow, and 4
identical drawings bear two names. Names of brands, letters, plain shapes and mirrored pairs
("arrow-left") were left out.

========== ====== ======= ========= ============ ==========
split      images classes a class   icon sets    families
========== ====== ======= ========= ============ ==========
train       7,015     100    36-129           92         71
validation  1,225     100      3-21           16         12
test        1,397     100      3-26           16         12
========== ====== ======= ========= ============ ==========

Splits hold different families of icon sets (sets of one author, or redrawn from another), so a
network is tested on drawing styles that it has not seen; held-out drawings that are nearly equal
(cosine similarity above 0.95) to one of the same class in an earlier split were dropped. Classes
are unequal in size. ``scripts/build_icons100.py`` rebuilds the files byte for byte, and
``assets/NOTICE`` names each set, its authors and its licence.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from kdscale.data._spec import Icons100Spec
from kdscale.data._split import ArraySplit
from kdscale.data._task import Source

ASSETS = files("kdscale.data").joinpath("assets")

# Of the training split, as measured.
_MEAN = (0.7331, 0.7334, 0.7337)
_STD = (0.4130, 0.4111, 0.4126)


def _read(split: str) -> tuple[ArraySplit, tuple[str, ...]]:
    with (
        ASSETS.joinpath(f"icons100-{split}.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        names = tuple(str(name) for name in arrays["class_names"])
        return ArraySplit.of(arrays["images"], arrays["labels"]), names


def read_icons100(spec: Icons100Spec) -> Source:
    """Returns the training and validation split."""
    train, class_names = _read("train")
    validation, _ = _read("validation")
    return Source(train, validation, class_names, _MEAN, _STD)


def read_icons100_test(spec: Icons100Spec) -> ArraySplit:
    """Returns the test split."""
    return _read("test")[0]
