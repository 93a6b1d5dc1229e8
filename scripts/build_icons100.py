"""Builds Icons-100 (kdscale/data/assets) from an unpacked copy of the npm package @iconify/json.

    npm pack @iconify/json@2.2.535 && tar xzf iconify-json-2.2.535.tgz
    pip install resvg-py==0.5.0 pillow numpy
    python scripts/build_icons100.py package --sheet sheet.png

The same package gives the same bytes: every choice is ordered by a SHA-256 of names, never by a
random generator. See kdscale/data/_icons100.py for what the data set is and is not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import resvg_py
from PIL import Image

Indices = npt.NDArray[np.int64]

CLASSES = 100
ICONS_PER_SET_AND_CLASS = 3
SIZE = 32
SEED = "icons100"
SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 1 / 8  # of the families, for validation and for test each
TRAIN_SHARE = 0.68  # of the icons, at least: families differ in size
COLOURED_TOLERANCE = 0.02  # between the share of coloured icons in a held-out split and in all
SPLIT_DRAWS = 10_000
SIMILAR = 0.95

LICENCES = ("MIT", "Apache-2.0", "CC0-1.0", "ISC", "BSD-3-Clause", "Unlicense")
# Sets of logos and of file types: there, "target", "box" or "messenger" is a company.
CATEGORIES_LEFT_OUT = ("Logos", "Programming")

# Sets of one author are one family, and so are sets that redraw or continue another.
SAME_FAMILY = (
    ("feather", "lucide"),
    ("ion", "famicons"),
    ("ic", "material-symbols", "mdi"),
    ("mi", "mono-icons"),
)

# Words around a name that only say its style or size.
STYLE_PREFIXES = (
    "baseline bold color duotone fa far fas fill filled ic icon ios light line linear logo md mdi "
    "outline outlined regular round rounded sc sharp solid thin twotone ui"
)
STYLE_SUFFIXES = (
    "alt alternate big bold bolder color colour curved duo duotone fill filled flat icon large lg "
    "light line linear logo medium mini o outline outlined regular round rounded s sharp simple sm "
    "small solid straight stroke thin tone two twotone variant xl xs "
    "1x1 4x3 12px 16px 20px 24px 32px 48px"
)
PREFIXES = frozenset(STYLE_PREFIXES.split())
SUFFIXES = frozenset(STYLE_SUFFIXES.split())

# Only names that would otherwise be among the first hundred need a mention.
LEFT_OUT = {
    "brands and trade marks": (
        "android apple bluetooth box facebook github instagram linkedin rss twitter wifi youtube"
    ),
    "letters and glyphs": "code info text underline",
    "shapes, lines and their layouts": (
        "check-circle circle diamond grid list menu minus pause play plus square stop table "
        "triangle"
    ),
    "mirror images of each other: the default augmentation flips": (
        "align-left align-right arrow-left arrow-right chevron-left chevron-right undo"
    ),
    "another name of a class that is kept, or drawn in every way": "edit expand location radio",
}
DROPPED = frozenset(name for names in LEFT_OUT.values() for name in names.split())


NOTICE = """\
Icons-100: the drawings in icons100-train.npz, icons100-validation.npz and icons100-test.npz
===========================================================================================

These {icons} icons, rendered at 32x32 pixels on white, come from the {sets} icon sets below, each
under the licence that its authors chose. They were collected by Iconify (https://iconify.design);
names, authors, licences and addresses are as stated in its collections.json, version {version}.
scripts/build_icons100.py made the files and this notice. The icons are used as drawings of
everyday things; no trade mark is meant, and no author endorses this software.

{table}

Licence texts
=============

Apache-2.0: see the LICENSE file of this package, or https://www.apache.org/licenses/LICENSE-2.0
CC0-1.0: https://creativecommons.org/publicdomain/zero/1.0/
Unlicense: https://unlicense.org/
MIT, ISC and BSD-3-Clause are reproduced here; "the authors" are those named above for each set.

MIT
---
Copyright (c) the authors

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

ISC
---
Copyright (c) the authors

Permission to use, copy, modify, and/or distribute this software for any purpose with or without
fee is hereby granted, provided that the above copyright notice and this permission notice appear
in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS
SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE
AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT,
NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE.

BSD-3-Clause
------------
Copyright (c) the authors. All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted
provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions
   and the following disclaimer.
2. Redistributions in binary form must reproduce the above copyright notice, this list of
   conditions and the following disclaimer in the documentation and/or other materials provided
   with the distribution.
3. Neither the name of the copyright holder nor the names of its contributors may be used to
   endorse or promote products derived from this software without specific prior written
   permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR
IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND
FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR
CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER
IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT
OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""


@dataclass(frozen=True)
class Icon:
    """One drawing: where it is from, what it shows, and its pixels ``[3, 32, 32]``."""

    icon_set: str
    name: str
    label: int
    image: npt.NDArray[np.uint8]


def rank(*names: str) -> str:
    """Returns a key that orders names as if at random, the same on every machine."""
    return hashlib.sha256("/".join((SEED, *names)).encode()).hexdigest()


def class_name(icon_name: str) -> str:
    """Returns an icon's name without the affixes that only say its style or size."""
    words = icon_name.split("-")
    while len(words) > 1 and words[0] in PREFIXES:
        words = words[1:]
    while len(words) > 1 and (words[-1] in SUFFIXES or words[-1].isdigit()):
        words = words[:-1]
    return "-".join(words)


def usable_sets(collections: Mapping[str, Any]) -> list[str]:
    return sorted(
        name
        for name, about in collections.items()
        if about["license"].get("spdx") in LICENCES
        and about.get("category") not in CATEGORIES_LEFT_OUT
    )


def families(sets: Iterable[str], collections: Mapping[str, Any]) -> dict[str, str]:
    """Returns the family of each set: its name's first word, joined over authors and forks."""
    family = {name: name for name in sets}
    groups: dict[str, list[str]] = defaultdict(list)
    for name in family:
        groups[f"prefix {name.split('-')[0]}"].append(name)
        groups[f"author {collections[name]['author']['name']}"].append(name)
    for number, names in enumerate(SAME_FAMILY):
        groups[f"fork {number}"].extend(names)
    for group in groups.values():
        joined = {family[name] for name in group if name in family}
        for name, old in family.items():
            if old in joined:
                family[name] = min(joined)
    return family


def svg_of(icon: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Returns the icon as SVG text, centred in a square so that nothing is stretched."""
    left, top = (icon.get(side, defaults.get(side, 0)) for side in ("left", "top"))
    width, height = (icon.get(side, defaults.get(side, 16)) for side in ("width", "height"))
    side = max(width, height)
    view_box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    body = icon["body"].replace("currentColor", "#000")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" viewBox="{view_box}">{body}</svg>'
    )


def render(svg: str) -> npt.NDArray[np.uint8] | None:
    """Returns the drawing on white, ``[3, 32, 32]``, or None if nothing can be seen."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    canvas = Image.new("RGBA", drawing.size, "white")
    canvas.alpha_composite(drawing)
    pixels = np.asarray(canvas.convert("RGB")).transpose(2, 0, 1).copy()
    visible = (pixels.min(axis=0) < 128).mean()
    return pixels if 0.01 < visible < 0.99 else None


def collect(package: Path, sets: Sequence[str]) -> tuple[list[str], list[Icon]]:
    """Returns the class names and every icon that is used, in a fixed order."""
    sources: dict[str, dict[str, Any]] = {}
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sets:
        sources[name] = json.loads((package / "json" / f"{name}.json").read_text("utf-8"))
        for icon_name, icon in sources[name]["icons"].items():
            if not icon.get("hidden"):
                found[class_name(icon_name)][name].append(icon_name)
    candidates = sorted(found.keys() - DROPPED, key=lambda label: (-len(found[label]), label))
    class_names = sorted(candidates[:CLASSES])
    print("next in line:", *candidates[CLASSES : CLASSES + 20])

    icons: list[Icon] = []
    blank = identical = 0
    for label, text in enumerate(class_names):
        seen: set[bytes] = set()
        for name, icon_names in sorted(found[text].items()):
            chosen = sorted(icon_names, key=lambda icon: rank(name, icon))
            for icon_name in sorted(chosen[:ICONS_PER_SET_AND_CLASS]):
                image = render(svg_of(sources[name]["icons"][icon_name], sources[name]))
                if image is None:
                    blank += 1
                elif image.tobytes() in seen:
                    identical += 1
                else:
                    seen.add(image.tobytes())
                    icons.append(Icon(name, icon_name, label, image))
    print(f"{len(icons)} icons; skipped {blank} blank, {identical} identical within a class")
    return class_names, icons


def near_copies(icons: Sequence[Icon]) -> tuple[Indices, Indices]:
    """Returns the index pairs, both ways round, of nearly equal icons of one class."""
    labels = np.array([icon.label for icon in icons])
    ink = 255.0 - np.stack([icon.image for icon in icons]).reshape(len(icons), -1)  # white is none
    ink /= np.linalg.norm(ink, axis=1, keepdims=True)
    pairs = []
    for label in range(CLASSES):
        mine = np.flatnonzero(labels == label)
        first, second = np.nonzero(ink[mine] @ ink[mine].T > SIMILAR)
        pairs.append((mine[first], mine[second]))
    return np.concatenate([first for first, _ in pairs]), np.concatenate([b for _, b in pairs])


def split_icons(icons: Sequence[Icon], family: Mapping[str, str]) -> Indices:
    """Returns each icon's split (an index of SPLITS), or -1 for a copy of an earlier split's icon.

    Of many fair draws of families the one is taken whose rarest held-out class is least rare.
    """
    names = sorted({family[icon.icon_set] for icon in icons})
    owner = np.array([names.index(family[icon.icon_set]) for icon in icons])
    labels = np.array([icon.label for icon in icons])
    coloured = np.array([np.ptp(icon.image, axis=0).max() > 16 for icon in icons])
    first, second = near_copies(icons)
    held_out = round(len(names) * HELD_OUT_SHARE)

    def draw(number: int) -> Indices:
        order = sorted(range(len(names)), key=lambda i: rank("split", str(number), names[i]))
        split_of_family = np.zeros(len(names), dtype=np.int64)
        split_of_family[order[:held_out]] = 1
        split_of_family[order[held_out : 2 * held_out]] = 2
        split: Indices = split_of_family[owner]
        copies = first[split[first] > split[second]]
        split[copies] = -1
        return split

    def score(number: int) -> tuple[bool, int, int]:
        split = draw(number)
        held = [np.bincount(labels[split == part], minlength=CLASSES) for part in (1, 2)]
        shares = [coloured[split == part].mean() for part in (1, 2)]
        fair = (
            np.mean(split == 0) >= TRAIN_SHARE
            and max(abs(share - coloured.mean()) for share in shares) < COLOURED_TOLERANCE
        )
        return fair, min(int(part.min()) for part in held), min(int(part.sum()) for part in held)

    split = draw(max(range(SPLIT_DRAWS), key=score))
    print(
        f"{len(names)} families, {held_out} for validation and {held_out} for test; "
        f"dropped {(split < 0).sum()} near copies"
    )
    return split


def save(folder: Path, splits: Mapping[str, list[Icon]], class_names: Sequence[str]) -> None:
    for split, icons in splits.items():
        path = folder / f"icons100-{split}.npz"
        np.savez_compressed(
            path,
            images=np.stack([icon.image for icon in icons]),
            labels=np.array([icon.label for icon in icons], dtype=np.uint8),
            class_names=np.array(class_names),
        )
        per_class = Counter(icon.label for icon in icons)
        low, high = min(per_class.values()), max(per_class.values())
        print(
            f"{split}: {len(icons)} images of {len(per_class)} classes, {low}-{high} a class, "
            f"{len({icon.icon_set for icon in icons})} sets, {path.stat().st_size / 1e6:.2f} MB"
        )


def notice(icons: Sequence[Icon], collections: Mapping[str, Any], version: str) -> str:
    """Returns the NOTICE: each set used with its author, licence and addresses."""
    used = Counter(icon.icon_set for icon in icons)
    entries = []
    for name, number in sorted(used.items()):
        about = collections[name]
        author, licence = about["author"], about["license"]
        addresses = [author.get("url"), licence.get("url")]
        entries.append(
            f"{about['name']} ({name}): {number} icons\n"
            f"    by {author['name']}, {licence['spdx']}\n"
            + "\n".join(f"    {address}" for address in dict.fromkeys(addresses) if address)
        )
    table = "\n".join(entries)
    return NOTICE.format(icons=len(icons), sets=len(used), version=version, table=table)


def contact_sheet(path: Path, icons: Sequence[Icon], columns: int = 40, rows: int = 25) -> None:
    shown = sorted(icons, key=lambda icon: rank("sheet", icon.icon_set, icon.name))
    shown = sorted(shown[: columns * rows], key=lambda icon: icon.label)
    sheet = np.full((rows * (SIZE + 4), columns * (SIZE + 4), 3), 200, dtype=np.uint8)
    for i, icon in enumerate(shown):
        y, x = (SIZE + 4) * (i // columns), (SIZE + 4) * (i % columns)
        sheet[y : y + SIZE, x : x + SIZE] = icon.image.transpose(1, 2, 0)
    Image.fromarray(sheet).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the unpacked npm package")
    parser.add_argument("--sheet", type=Path, help="also draw a contact sheet to this PNG")
    default = Path(__file__).parents[1] / "kdscale" / "data" / "assets"
    parser.add_argument("--output", type=Path, default=default)
    options = parser.parse_args()

    collections = json.loads((options.package / "collections.json").read_text("utf-8"))
    sets = usable_sets(collections)
    class_names, icons = collect(options.package, sets)
    print(*class_names)
    split = split_icons(icons, families(sets, collections))
    splits = {
        name: [icon for icon, number in zip(icons, split, strict=True) if number == index]
        for index, name in enumerate(SPLITS)
    }
    save(options.output, splits, class_names)
    kept = [icon for icons_of_split in splits.values() for icon in icons_of_split]
    version = json.loads((options.package / "package.json").read_text("utf-8"))["version"]
    (options.output / "NOTICE").write_text(notice(kept, collections, version), "utf-8")
    if options.sheet:
        contact_sheet(options.sheet, kept)


if __name__ == "__main__":
    main()
