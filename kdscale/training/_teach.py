"""The teacher of a cohort: live, or live only where its cache has nothing yet."""

from __future__ import annotations

import json
import logging
import os
import platform
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdscale.data import (
    Augmentation,
    Header,
    Part,
    TaskData,
    TeacherCache,
    cache_key,
    entry_bytes,
)
from kdscale.files import Remote
from kdscale.losses import METHODS
from kdscale.models import Network
from kdscale.outputs import LOGITS, Need, Outputs, OutputShapes
from kdscale.training._cache_spec import TeacherCacheSpec
from kdscale.training._compress import compressed, restored, seen
from kdscale.training._group import Group
from kdscale.training._spec import RecipeSpec
from kdscale.training._student import Member
from kdscale.training._teach_parts import (
    assembled,
    cpu_name,
    formatted,
    kept_of,
    parts_of,
    same_bits,
    static_of,
)

_LOG = logging.getLogger(__name__)
_SMALLEST_CHUNK = 16
"""Images of the smallest pass that may stand for a part of a batch."""


@dataclass(frozen=True)
class CachedTeacher:
    """A teacher behind its cache, not loaded as long as the cache has all that is asked for.

    Attributes:
        load: Returns the network in eval mode, frozen, on the group's device.
        identity: Plain values that tell its weights and architecture from any other's.
        data: The training split's fingerprint.
        spec: The cache, as the study file spells it.
        folder: The folder of all caches.
        remote: The same on a remote filesystem; None for this one alone.
    """

    load: Callable[[], Network]
    identity: Mapping[str, Any]
    data: str
    spec: TeacherCacheSpec
    folder: Path
    remote: Remote | None = None


@dataclass
class Counts:
    """How many (image, view) pairs the cache had and had not, and kept of the latter."""

    hits: int = 0
    misses: int = 0
    kept: int = 0


def _rounded_up(count: int, step: int) -> int:
    return -(-count // step) * step


class _Described(Network):
    """Stands for a network of which only the shapes are asked."""

    def __init__(self, shapes: OutputShapes) -> None:
        super().__init__()
        self.shapes = shapes


class Teaching:
    """What a cohort's loop asks for the teacher's outputs.

    Args:
        teacher: The network on the group's device, or the same behind its cache.
        recipe: The cohort's recipe, for the format of numbers and memory.
        data: The task's data.
        group: The workers.

    Attributes:
        counts: Hits and misses since the start.
        shapes: Of the network's outputs.
    """

    def __init__(
        self, teacher: Network | CachedTeacher, recipe: RecipeSpec, data: TaskData, group: Group
    ) -> None:
        self.counts = Counts()
        self._source = teacher if isinstance(teacher, CachedTeacher) else None
        self._network: Network | None = None
        self._recipe = recipe
        self._data = data
        self._group = group
        self._finite = Augmentation(data.augmentation, data.image_size).finite
        self._kept: frozenset[Need] = LOGITS
        self._cache: TeacherCache | None = None
        self._header: Header | None = None
        self._static: dict[str, Tensor] = {}
        self._first: tuple[Tensor, dict[str, Tensor]] | None = None
        self._chunk = 0
        self._told = False
        if isinstance(teacher, CachedTeacher):
            self.shapes = self._known_shapes(teacher)
        else:
            self._network = self._formatted(teacher)
            self.shapes = teacher.shapes

    @property
    def network(self) -> Network:
        """The live teacher, loaded now if it was not needed before."""
        if self._network is None:
            assert self._source is not None
            self._network = self._formatted(self._source.load())
        return self._network

    def network_for(self, member: Member) -> Network:
        """Returns the network that a student is built from; its shapes do for most."""
        if self._network is None and not any(METHODS[t.method].student for t in member.terms):
            return _Described(self.shapes)
        return self.network

    def keep(self, needs: frozenset[Need]) -> None:
        """Sets what the cache keeps: all that the cohort will ask for, whoever drops out."""
        self._kept = kept_of(needs)

    def live(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        """Returns the outputs for normalised images ``[B, 3, H, W]``, computed now."""
        bf16 = self._recipe.precision == "bf16"
        own_format = self.network.image_format
        if own_format is not None:
            images = images.contiguous(memory_format=own_format)
        with (
            torch.no_grad(),
            torch.autocast(images.device.type, torch.bfloat16, enabled=bf16),
        ):
            outputs = self.network.outputs(images, needs)
        return outputs if own_format is None else formatted(outputs, self._format)

    def teach(
        self, images: Tensor, indices: Tensor, codes: Tensor, needs: frozenset[Need]
    ) -> Outputs:
        """Returns at least the outputs that ``needs`` names, bitwise those of `live` with fp32.

        Args:
            images: Normalised images ``[B, 3, H, W]``.
            indices: Their numbers in the training split, int64 ``[B]`` on the CPU.
            codes: Their views, int64 ``[B]`` on the CPU.
            needs: What to return.
        """
        # A tail is a function, which only the network has; new crops never come again.
        if self._source is None or "tail" in needs or not self._finite:
            return self.teach_unkept(images, needs)
        cache = self._cache = self._cache or self._opened(self._source, images)
        header = cache.header
        if header is None or not header.parts:
            return self.teach_unkept(images, needs)
        found, outputs = cache.look_up(indices, codes, pinned=images.is_cuda)
        missing = torch.nonzero(~found)[:, 0]
        self.counts.hits += len(indices) - len(missing)
        self.counts.misses += len(missing)
        if len(missing):
            outputs = self._completed(cache, header, images, found, outputs)
            kept = {part.name: outputs[part.name][missing] for part in header.parts}
            self.counts.kept += cache.store(indices[missing], codes[missing], kept)
        parts = {n: part.to(images.device, non_blocking=True) for n, part in outputs.items()}
        return assembled(restored(parts, self.shapes.classes), self._static)

    def teach_unkept(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        """Returns the outputs for images of which the cache keeps none, as `teach` would."""
        outputs = self.live(images, needs)
        return outputs if self._source is None else seen(outputs, self._source.spec)

    @property
    def problem(self) -> str:
        """Why the cache cannot be read or written, or has been turned off; empty if it is well."""
        if self._cache is None:
            return ""
        header = self._cache.header
        if header is not None and not header.parts:
            return "this teacher's outputs cannot be kept: they depend on their batch"
        return self._cache.problem

    def end_epoch(self) -> None:
        """Logs the counts; warns, once, if the cache has failed and the teacher taught live.

        A cache that has failed is opened again for the next epoch: there may be room by then.
        """
        if self._cache is None:
            return
        self._cache.end_epoch()
        _LOG.info("teacher cache: %d hits, %d misses", self.counts.hits, self.counts.misses)
        damaged = self._cache.damaged
        why = self._cache.problem or (f"{damaged} damaged entries or files" if damaged else "")
        if why and not self._told:
            self._told = True
            warnings.warn(
                f"teacher cache: {why}; the live teacher computes what is absent, and results "
                "stay the same",
                RuntimeWarning,
                stacklevel=2,
            )
        if self._cache.problem:
            self._cache.close()
            self._cache = None

    def close(self) -> None:
        """Closes the cache."""
        self.end_epoch()
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def _completed(
        self,
        cache: TeacherCache,
        header: Header,
        images: Tensor,
        found: Tensor,
        outputs: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Returns the outputs with the absent rows computed, in passes that keep their bits."""
        assert self._source is not None
        dtype = self._source.spec.dtype
        missing, present = torch.nonzero(~found)[:, 0], torch.nonzero(found)[:, 0]
        count = len(images)
        rows = _rounded_up(len(missing), self._chunk or _SMALLEST_CHUNK)
        if rows < count and not self._chunk:
            self._chunk = self._smallest_pass(images)
            rows = count  # for which the whole pass is at hand
        if rows >= count:
            live = self._whole(images)
            return {part.name: part.rounded(live[part.name], dtype) for part in header.parts}
        picked = torch.cat([missing, present[: rows - len(missing)]]).to(images.device)
        live = self._live_parts(self._arranged(images[picked]))
        for part in header.parts:
            computed = part.rounded(live[part.name][: len(missing)], dtype)
            outputs[part.name][missing] = computed.cpu()
        return outputs

    def _whole(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the live parts of a whole batch; the first one's are known already."""
        first, self._first = self._first, None
        return first[1] if first and first[0] is images else self._live_parts(images)

    def _opened(self, source: CachedTeacher, images: Tensor) -> TeacherCache:
        augmentation = Augmentation(self._data.augmentation, self._data.image_size)
        cache = TeacherCache(
            source.folder,
            cache_key(self._identity(source, images)),
            views=augmentation.view_count,
            dtype=source.spec.dtype,
            quota_bytes=source.spec.quota,
            remote=source.remote,
        )
        if cache.header is None:
            cache.create(self._header or self._measured(images))
        header = self._header = cache.header
        if header is not None and header.parts:
            epoch_bytes = len(self._data.train) * entry_bytes(header.parts, source.spec.dtype)
            if epoch_bytes > source.spec.quota:
                cache.header = Header(())  # not even one epoch: writing it would only cost
            self._static = {name: part.to(images.device) for name, part in header.static.items()}
        return cache

    def _identity(self, source: CachedTeacher, images: Tensor) -> dict[str, Any]:
        """Returns all that the bits of the live teacher's outputs depend on."""
        device = images.device
        return {
            "teacher": dict(source.identity),
            "data": [source.data, self._data.image_size, self._data.mean, self._data.std],
            "augmentation": self._data.augmentation.model_dump(),
            "kept": sorted(self._kept),
            "dtype": source.spec.dtype,
            "top_k": source.spec.top_k,
            "precision": self._recipe.precision,
            "channels_last": self._recipe.channels_last,
            "rows": len(images),
            "machine": [torch.__version__, device.type, torch.get_float32_matmul_precision()]
            + (
                [torch.cuda.get_device_name(device), torch.backends.cudnn.allow_tf32]
                if device.type == "cuda"
                else [torch.get_num_threads(), cpu_name()]
            ),
        }

    def _measured(self, images: Tensor) -> Header:
        """Returns what this teacher's entries are, after trying what their bits depend on.

        An entry was computed among other images than those that it is used with. That is sound
        only if a row's bits do not depend on its place and its neighbours, so one batch is passed
        that holds each image of the second half twice and no other.
        A teacher whose rows do depend on that is not cached.
        """
        whole = self.live(images, self._kept)
        wanted = compressed(parts_of(whole), self._top_k)
        half = torch.arange(len(images) // 2, len(images))
        order = torch.cat([half.flip(0), half.roll(1)])[: len(images)]
        if not self._agrees(images, wanted, order):
            return Header(())
        self._first = (images, wanted)
        parts = tuple(Part.of(name, batch) for name, batch in wanted.items())
        return Header(parts, static_of(whole))

    def _smallest_pass(self, images: Tensor) -> int:
        """Returns how many images a pass must have for its rows to have a whole batch's bits.

        It is a quarter or a half of the batch, if all multiples of it do, or the whole.
        """
        wanted = self._whole(images)
        self._first = (images, wanted)
        count = len(images)
        order = torch.arange(count)
        for split in (4, 2):
            chunk = count // split
            if count % split or chunk < _SMALLEST_CHUNK:
                continue
            sizes = range(chunk, count, chunk)
            if all(self._agrees(images, wanted, order[-size:]) for size in sizes):
                return chunk
        return count

    def _agrees(self, images: Tensor, wanted: Mapping[str, Tensor], order: Tensor) -> bool:
        """Returns whether a pass of the images in this order has the bits of the whole batch's."""
        rows = order.to(images.device)
        got = self._live_parts(self._arranged(images[rows]))
        return all(same_bits(got[name], wanted[name][rows]) for name in wanted)

    def _live_parts(self, images: Tensor) -> dict[str, Tensor]:
        return compressed(parts_of(self.live(images, self._kept)), self._top_k)

    @property
    def _top_k(self) -> int | None:
        return None if self._source is None else self._source.spec.top_k

    @property
    def _format(self) -> torch.memory_format:
        return torch.channels_last if self._recipe.channels_last else torch.contiguous_format

    def _arranged(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=self._format)

    def _formatted(self, network: Network) -> Network:
        if network.image_format is None and self._recipe.channels_last:
            network = network.to(memory_format=torch.channels_last)
        return network

    def _known_shapes(self, source: CachedTeacher) -> OutputShapes:
        """Returns the teacher's shapes, from a small file beside the caches if it is there."""
        key = cache_key({**source.identity, "image_size": self._data.image_size})
        path = source.folder / "shapes" / f"{key}.json"
        if source.remote is not None and not path.exists():
            with suppress(OSError):
                source.remote.fetch(f"shapes/{path.name}", path)
        try:
            saved = json.loads(path.read_text())
            saved["stages"] = tuple(tuple(size) for size in saved["stages"])
            saved["map"] = None if saved["map"] is None else tuple(saved["map"])
            return OutputShapes(**saved)
        except (OSError, ValueError, KeyError, TypeError):
            shapes = self.network.shapes
        draft = path.with_name(f".{key}.{platform.node()}.{os.getpid()}")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(asdict(shapes)))
            os.replace(draft, path)
            if source.remote is not None:
                source.remote.put(path, f"shapes/{path.name}")
        return shapes
