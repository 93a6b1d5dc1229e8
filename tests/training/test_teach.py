from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from kdscale.data import Augmentation, normalise
from kdscale.losses import TermConfig
from kdscale.models import Network, create_model
from kdscale.outputs import LOGITS, Need, Outputs
from kdscale.training import (
    CachedTeacher,
    Cohort,
    Group,
    Member,
    RecipeSpec,
    Teaching,
    train_cohort,
)
from kdscale.training._compress import compressed, restored

from .tasks import (
    RECIPE,
    TERMS,
    VIT,
    Outcome,
    assert_same,
    behind,
    cohort_of,
    data,
    files_of,
    follow,
    members,
    must_not_load,
    recipe_with,
    teacher,
)

ROWS = 64
STAGES = frozenset({"logits", "embedding", "map", "class_maps", "stage 1", "stage 3"})
REST = frozenset({"logits", "classifier", "preactivation 1", "preactivation 3"})
NEEDS = {"logits": LOGITS, "stages": STAGES, "rest": REST}


def teaching(
    source: Network | CachedTeacher, needs: frozenset[Need] = LOGITS, recipe: RecipeSpec = RECIPE
) -> Teaching:
    made = Teaching(source, recipe, data(), Group())
    made.keep(needs)
    return made


def batch(epoch: int, rows: int = ROWS, recipe: RecipeSpec = RECIPE) -> tuple[Tensor, ...]:
    """Returns images, numbers and views of the first batch of an epoch."""
    indices = torch.randperm(100, generator=torch.Generator().manual_seed(epoch))[:rows]
    augmentation = Augmentation(data().augmentation, 32)
    codes = augmentation.views(0, epoch % 2, indices)  # two views: epochs 0 and 2 overlap
    images = normalise(
        augmentation.apply(data().train.gather(indices), codes), data().mean, data().std
    )
    if recipe.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return images, indices, codes


def tensors(outputs: Outputs) -> dict[str, Any]:
    """Returns everything in the outputs, the memory format of batches included."""
    found: dict[str, Any] = {}
    for name, part in vars(outputs).items():
        if isinstance(part, Tensor):
            found[name] = part
        elif name in ("stages", "preactivations", "norms"):
            found |= {f"{name} {number}": value for number, value in part.items()}
        elif part is not None:
            found[name] = part
    found = {n: tuple(v) if isinstance(v, tuple) else v for n, v in found.items()}
    strides = {n: v.stride() for n, v in found.items() if isinstance(v, Tensor)}
    return {n: _detached(v) for n, v in found.items()} | {"strides": strides}


def _detached(value: Any) -> Any:
    return tuple(v.detach() for v in value) if isinstance(value, tuple) else value.detach()


def cache_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.block"))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", NEEDS)
def test_live_cold_half_filled_and_warm_are_bitwise_the_same(
    kind: str, channels_last: bool, tmp_path: Path
) -> None:
    needs, recipe = NEEDS[kind], recipe_with(channels_last=channels_last)
    live = teaching(teacher(), needs, recipe)
    wanted = [tensors(live.live(batch(e, recipe=recipe)[0], needs)) for e in range(4)]

    def told(made: Teaching) -> list[dict[str, Any]]:
        return [tensors(made.teach(*batch(e, recipe=recipe), needs)) for e in range(4)]

    cold = teaching(behind(tmp_path), needs, recipe)
    for got, want in zip(told(cold), wanted, strict=True):
        assert_same(got, want)
    assert (cold.counts.hits + cold.counts.misses, cold.counts.hits > 0) == (4 * ROWS, True)
    cold.close()
    warm = teaching(behind(tmp_path, must_not_load), needs, recipe)
    for got, want in zip(told(warm), wanted, strict=True):
        assert_same(got, want)
    assert (warm.counts.hits, warm.counts.misses) == (4 * ROWS, 0)
    warm.close()


def test_only_what_is_absent_is_computed_in_passes_of_a_sound_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, indices, codes = batch(0)
    first = teaching(behind(tmp_path))
    known = torch.arange(ROWS) < 45
    first.teach(images, indices, codes, LOGITS)
    first.close()
    for file in cache_files(tmp_path):
        file.unlink()
    again = teaching(behind(tmp_path))
    for few in (torch.arange(ROWS) < 32, known):  # the second one tries which passes are sound
        again.teach(torch.cat([images[few]] * 2)[:ROWS], *_twice(indices, codes, few), LOGITS)
    sizes: list[int] = []
    live = Teaching.live

    def spied(self: Teaching, images: Tensor, needs: frozenset[Need]) -> Outputs:
        sizes.append(len(images))
        return live(self, images, needs)

    monkeypatch.setattr(Teaching, "live", spied)
    got = again.teach(images, indices, codes, LOGITS)
    assert sizes == [32]  # 19 are absent, and passes have 16 rows at least
    assert_same(got.logits, live(again, images, LOGITS).logits)


def _twice(indices: Tensor, codes: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([indices[known]] * 2)[:ROWS], torch.cat([codes[known]] * 2)[:ROWS]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(b"noise" * (len(path.read_bytes()) // 5)), True),
        (lambda path: os.truncate(path, 300_000), True),
        (lambda path: os.truncate(path, 0), False),  # as a file that is just being made
        (lambda path: path.unlink(), False),
    ],
    ids=["noise", "truncated", "emptied", "evicted"],
)
def test_a_damaged_file_is_computed_again(
    damage: Callable[[Path], None], told: bool, tmp_path: Path
) -> None:
    wanted = teaching(teacher()).live(batch(0)[0], LOGITS).logits
    cold = teaching(behind(tmp_path))
    cold.teach(*batch(0), LOGITS)
    cold.close()
    for file in cache_files(tmp_path):
        damage(file)
    for misses in (True, False):
        made = teaching(behind(tmp_path))
        assert_same(made.teach(*batch(0), LOGITS).logits, wanted)
        assert (made.counts.misses > 0) == misses
        if told and misses:
            with pytest.warns(RuntimeWarning, match=r"\d+ damaged entries or files"):
                made.end_epoch()
        made.close()


def test_one_flipped_bit_is_one_miss(tmp_path: Path) -> None:
    cold = teaching(behind(tmp_path))
    wanted = cold.teach(*batch(0), LOGITS).logits
    cold.close()
    [file] = cache_files(tmp_path)
    content = bytearray(file.read_bytes())
    place = next(i for i, byte in enumerate(content) if byte)
    content[place + 40] ^= 1
    file.write_bytes(bytes(content))
    made = teaching(behind(tmp_path))
    assert_same(made.teach(*batch(0), LOGITS).logits, wanted)
    assert made.counts.misses == 1
    with pytest.warns(RuntimeWarning, match="1 damaged"):
        made.end_epoch()
    made.end_epoch()  # told once
    made.close()


def test_a_folder_that_cannot_be_written_leaves_the_live_teacher(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = teaching(behind(tmp_path / "file"))
    wanted = made.live(batch(0)[0], LOGITS).logits
    assert_same(made.teach(*batch(0), LOGITS).logits, wanted)
    with pytest.warns(RuntimeWarning, match="could not be opened"):
        made.close()


def test_fp16_rounds_what_students_see_and_hits_agree_with_misses(tmp_path: Path) -> None:
    needs = STAGES
    live = teaching(teacher(), needs).live(batch(0)[0], needs)
    cold = teaching(behind(tmp_path, dtype="fp16"), needs)
    first = tensors(cold.teach(*batch(0), needs))
    second = tensors(cold.teach(*batch(0), needs))
    assert cold.counts.hits == ROWS
    assert_same(first, second)
    for name, want in tensors(live).items():
        if name != "strides":
            assert torch.equal(first[name], want.half().float())
            assert not torch.equal(first[name], want)
    cold.close()


def test_keys_differ_where_bits_may(tmp_path: Path) -> None:
    def fill(source: CachedTeacher, needs: frozenset[Need] = LOGITS, **changes: Any) -> int:
        rows = changes.pop("rows", ROWS)
        recipe = recipe_with(**changes)
        made = teaching(source, needs, recipe)
        made.teach(*batch(0, rows, recipe), needs)
        made.close()
        return len(list(tmp_path.glob("*/header")))

    source = behind(tmp_path)
    assert fill(source) == 1
    assert fill(source) == 1
    assert fill(source, LOGITS | {"tail"}) == 1  # live
    assert fill(behind(tmp_path, name="other")) == 2
    assert fill(replace(source, data="other")) == 3
    assert fill(behind(tmp_path, dtype="fp16")) == 4
    assert fill(source, STAGES) == 5
    assert fill(source, channels_last=True) == 6
    assert fill(source, precision="bf16") == 7
    assert fill(source, rows=32) == 8
    other = replace(data(), augmentation=data().augmentation.model_copy(update={"flip": False}))
    made = Teaching(source, RECIPE, other, Group())
    made.teach(*batch(0), LOGITS)
    made.close()
    assert len(list(tmp_path.glob("*/header"))) == 9


class Leaky(Network):
    """A network whose rows depend on their neighbours."""

    def __init__(self, inner: Network) -> None:
        super().__init__()
        self.inner = inner
        self.shapes = inner.shapes

    def outputs(self, images: Tensor, needs: frozenset[Need]) -> Outputs:
        return self.inner.outputs(images - 1e-3 * images[:1], needs)


def test_a_teacher_whose_rows_depend_on_their_neighbours_is_not_cached(tmp_path: Path) -> None:
    made = teaching(behind(tmp_path, lambda: Leaky(teacher()).eval()))
    for _ in range(2):
        wanted = made.live(batch(0)[0], LOGITS).logits
        assert_same(made.teach(*batch(0), LOGITS).logits, wanted)
    assert made.counts.hits == 0
    assert not cache_files(tmp_path)
    made.close()


def test_outputs_too_large_for_the_quota_stay_live(tmp_path: Path) -> None:
    made = teaching(behind(tmp_path, quota="30kB"))
    made.teach(*batch(0), LOGITS)
    made.teach(*batch(0), LOGITS)
    assert made.counts.hits == 0
    assert not cache_files(tmp_path)
    made.close()


def test_a_vision_transformer_is_cached_too(tmp_path: Path) -> None:
    network = create_model(VIT.model, 100, args=VIT.args, seed=3).eval().requires_grad_(False)
    needs = frozenset({"logits", "embedding", "classifier"} & network.offers)
    wanted = tensors(teaching(network, needs).live(batch(0)[0], needs))
    cold = teaching(behind(tmp_path, lambda: network), needs)
    assert_same(tensors(cold.teach(*batch(0), needs)), wanted)
    assert_same(tensors(cold.teach(*batch(0), needs)), wanted)
    assert cold.counts.hits == ROWS
    cold.close()


def train(cohort: Cohort, source: Network | CachedTeacher) -> dict[str, Outcome]:
    return follow(train_cohort(cohort, data(), source, Group()))


def test_trials_are_the_same_without_a_cache_cold_warm_and_resumed(tmp_path: Path) -> None:
    terms = TERMS | {"fitnet": (TermConfig("fitnet", "fitnet", 0.1),)}

    def trials(kind: str) -> tuple[Member, ...]:
        named = members(tmp_path / kind, *terms)
        return tuple(replace(member, terms=terms[member.name]) for member in named)

    cache = tmp_path / "cache"
    live = train(cohort_of(trials("live")), teacher())
    cold = train(cohort_of(trials("cold")), behind(cache))
    warm = train(cohort_of(trials("warm")), behind(cache))
    assert live == cold == warm
    progress = train_cohort(cohort_of(trials("resumed")), data(), behind(cache), Group())
    next(progress), next(progress)
    progress.close()
    train(cohort_of(trials("resumed")), behind(cache))
    for kind in ("cold", "warm", "resumed"):
        for member, other in zip(trials("live"), trials(kind), strict=True):
            assert_same(files_of(other), files_of(member))


def test_with_a_complete_cache_the_teacher_is_not_loaded(tmp_path: Path) -> None:
    names = ("kd", "dkd", "deep", "rsd", "two")
    cold = train(cohort_of(members(tmp_path / "a", *names)), behind(tmp_path / "cache"))
    source = behind(tmp_path / "cache", must_not_load)
    assert train(cohort_of(members(tmp_path / "b", *names)), source) == cold


def fill_at_once(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    made = teaching(behind(folder), STAGES)
    for epoch in range(4):
        made.teach(*batch(epoch), STAGES)
    made.close()
    os._exit(0)


@pytest.mark.slow
def test_two_processes_fill_one_cache_at_once(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spawn(fill_at_once, args=(tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]
    live, warm = teaching(teacher(), STAGES), teaching(behind(tmp_path, must_not_load), STAGES)
    for epoch in range(4):
        wanted = tensors(live.live(batch(epoch)[0], STAGES))
        assert_same(tensors(warm.teach(*batch(epoch), STAGES)), wanted)
    assert warm.counts.misses == 0
    warm.close()
    torch.set_num_threads(threads)


@given(st.integers(1, 30), st.integers(2, 30), st.sampled_from([torch.float32, torch.bfloat16]))
def test_compressed_logits_keep_the_largest_and_the_others_mass(
    top_k: int, classes: int, dtype: torch.dtype
) -> None:
    logits = 5 * torch.randn(7, classes, generator=torch.Generator().manual_seed(top_k))
    logits = logits.to(dtype)
    got = restored(compressed({"logits": logits}, top_k), classes)["logits"]
    if top_k >= classes:
        assert_same(got, logits)
        return
    kept = logits.topk(top_k).indices
    assert_same(got.gather(1, kept), logits.gather(1, kept))
    others = got.scatter(1, kept, -torch.inf)
    assert torch.equal(others.amax(1), others.masked_fill(others.isinf(), torch.inf).amin(1))
    want, have = (z.float().softmax(1).gather(1, kept) for z in (logits, got))
    torch.testing.assert_close(have, want, atol=1e-6 if dtype == torch.float32 else 2e-2, rtol=0)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_students_see_compressed_logits_kept_or_not(dtype: str, tmp_path: Path) -> None:
    needs = LOGITS | {"stage 1", "classifier"}
    how: dict[str, Any] = {"dtype": dtype, "top_k": 5}
    cold = teaching(behind(tmp_path, **how), needs)
    first = tensors(cold.teach(*batch(0), needs))
    assert_same(tensors(cold.teach(*batch(0), needs)), first)
    assert cold.counts.hits == ROWS
    assert_same(tensors(cold.teach_unkept(batch(0)[0], needs)), first)
    unkept = teaching(behind(tmp_path, quota=0, **how), needs)
    assert_same(tensors(unkept.teach(*batch(0), needs)), first)
    tail = cold.teach(*batch(0), needs | {"tail"})
    assert tail.tail is not None
    assert_same(tail.logits, first["logits"])
    live = cold.live(batch(0)[0], needs)
    assert all(len(row.unique()) <= 6 for row in first["logits"])
    if dtype == "fp32":
        assert_same(first["stages 1"], live.stages[1])
    cold.close()
    plain = teaching(behind(tmp_path, **how | {"top_k": 100}), needs)
    assert_same(plain.teach(*batch(0), needs).stages, cold.teach(*batch(0), needs).stages)
    assert plain.counts.hits == 0  # another key
