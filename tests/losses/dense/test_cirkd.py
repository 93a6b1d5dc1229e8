import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses import METHODS
from kdscale.losses.dense import CIRKDMemory, cirkd_memory, cirkd_minibatch
from kdscale.losses.dense import _cirkd_minibatch as minibatch_module
from kdscale.losses.dense._maps import sum_in_parts

from .maps import draw, pair

MEMORY = METHODS["cirkd_memory"]


def test_minibatch_is_the_mean_over_ordered_image_pairs() -> None:
    f_s, f_t = draw(3, 4, 2, 3), draw(3, 5, 2, 3, seed=1)
    unit_s, unit_t = (F.normalize(f).flatten(2) for f in (f_s, f_t))
    expected = 0.0
    for i in range(3):
        for j in range(3):
            p, q = (torch.softmax(u[i].T @ u[j] / 0.1, dim=1) for u in (unit_t, unit_s))
            expected += ((p * (p / q).log()).sum() / 6 / 9).item()
    assert cirkd_minibatch(f_s, f_t, temperature=0.1).item() == pytest.approx(expected)


def test_minibatch_is_zero_at_equal_and_at_scaled_features() -> None:
    f, zero = draw(2, 4, 4, 6), torch.zeros((), dtype=torch.float64)
    for pooling in (False, True):
        value = cirkd_minibatch(7 * f, f, temperature=0.1, pooling=pooling)
        torch.testing.assert_close(value, zero, atol=1e-14, rtol=0)
    other = draw(2, 4, 4, 6, seed=1)
    pooled = cirkd_minibatch(f, other, temperature=0.1, pooling=True)
    by_hand = cirkd_minibatch(
        F.avg_pool2d(f, 2), F.avg_pool2d(other, 2), temperature=0.1, pooling=False
    )
    torch.testing.assert_close(pooled, by_hand)


def test_minibatch_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    f_s, f_t = draw(2, 4, 3, 4).requires_grad_(), draw(2, 4, 3, 4, seed=1)
    whole = cirkd_minibatch(f_s, f_t, temperature=0.1)

    def in_small_parts(function: object, *rows: Tensor, cost: int) -> Tensor:
        return sum_in_parts(function, *rows, cost=cost, limit=5 * cost)  # type: ignore[arg-type]

    monkeypatch.setattr(minibatch_module, "sum_in_parts", in_small_parts)
    parts = cirkd_minibatch(f_s, f_t, temperature=0.1)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(*(torch.autograd.grad(v, f_s)[0] for v in (parts, whole)))


def make(official_quirks: bool = False, pixel_memory: int = 40, **given: int) -> CIRKDMemory:
    torch.manual_seed(0)
    sizes = {"region_memory": 5, "pixel_contrast": 30, "region_contrast": 9, **given}
    memory = CIRKDMemory(
        3, 4, 6, pixel_memory=pixel_memory, official_quirks=official_quirks, **sizes
    )
    return memory.double()


def step(memory: CIRKDMemory, f_t: Tensor, target: Tensor, seed: int = 0) -> Tensor:
    f_s = draw(len(f_t), 4, *f_t.shape[2:], seed=seed + 50)
    return memory(f_s, f_t, target, torch.Generator().manual_seed(seed))


def fed() -> tuple[Tensor, Tensor]:
    """Two images: one of classes 0 and 1 in halves, one of class 1 with ignored pixels."""
    target = torch.zeros(2, 6, 8, dtype=torch.int64)
    target[0, 3:] = 1
    target[1] = 1
    target[1, :1] = -1
    return draw(2, 6, 6, 8, seed=3), target


def test_memory_holds_class_means_and_pixels_of_that_class() -> None:
    memory = make()
    before = copy.deepcopy(dict(memory.named_buffers()))
    f_t, target = fed()
    step(memory, f_t, target)
    unit = F.normalize(f_t)
    assert memory.region_next.tolist() == [1, 2, 0]
    assert memory.pixel_next.tolist() == [16, 32, 0]
    torch.testing.assert_close(
        memory.regions[0, 0], F.normalize(unit[0][:, target[0] == 0].mean(1), dim=0)
    )
    torch.testing.assert_close(
        memory.regions[1, 1], F.normalize(unit[1][:, target[1] == 1].mean(1), dim=0)
    )
    for number, image, start in ((0, 0, 0), (1, 0, 0), (1, 1, 16)):
        of_class = unit[image][:, target[image] == number].T
        new = memory.pixels[number, start : start + 16]
        nearest = torch.cdist(new, of_class).min(dim=1)
        assert nearest.values.max() < 1e-6
        assert len(nearest.indices.unique()) == 16
    for name in ("pixels", "regions"):
        assert torch.equal(memory.get_buffer(name)[2], before[name][2])
    assert torch.equal(memory.pixels[1, 32:], before["pixels"][1, 32:])


def test_official_quirks_remembers_pixels_of_any_class() -> None:
    memory = make(official_quirks=True)
    f_t, target = fed()
    step(memory, f_t, target)
    unit = F.normalize(f_t)[0].flatten(1).T
    first_half = torch.cdist(memory.pixels[1, :16], unit[:24]).min(dim=1).values
    assert first_half.max() < 1e-6  # positions of class 0, in the queue of class 1
    assert not torch.allclose(memory.pixels, make().pixels)


def test_few_pixels_are_all_taken_and_queues_wrap_around() -> None:
    memory = make(pixel_memory=32, region_memory=2)
    target = torch.full((2, 6, 8), -1)
    target[:, 0, :3] = 2
    for seed in range(6):
        step(memory, draw(2, 6, 6, 8, seed=seed), target, seed)
    assert memory.pixel_next.tolist() == [0, 0, 6 * 6 % 32]
    assert memory.region_next.tolist() == [0, 0, 0]
    newest = F.normalize(draw(2, 6, 6, 8, seed=5))
    torch.testing.assert_close(memory.regions[2], F.normalize(newest[:, :, 0, :3].mean(2), dim=1))


def test_values_are_those_of_the_drawn_entries_and_ignore_unlabelled_pixels() -> None:
    memory = make(pixel_contrast=10_000, region_contrast=10_000).eval()
    f_t, target = fed()
    before = {name: buffer.clone() for name, buffer in memory.named_buffers()}
    values = step(memory, f_t, target)
    for name, buffer in memory.named_buffers():
        assert torch.equal(buffer, before[name])  # in evaluation nothing is remembered
    f_s = draw(2, 4, 6, 8, seed=50)
    x_s, x_t = (
        F.normalize(f).permute(0, 2, 3, 1).reshape(-1, 6)[target.flatten() >= 0]
        for f in (memory.projector(f_s), f_t)
    )
    for value, queue in zip(values, (memory.pixels, memory.regions), strict=True):
        p, q = (torch.softmax(x @ queue.flatten(0, 1).T / 0.1, dim=1) for x in (x_t, x_s))
        torch.testing.assert_close(value, (p * (p / q).log()).sum(1).mean())
    nothing = torch.full_like(target, -1)
    assert torch.equal(step(memory, f_t, nothing), torch.zeros(2, dtype=torch.float64))


def test_memory_part_is_zero_at_equal_pixels() -> None:
    x, queue = F.normalize(draw(5, 3)), F.normalize(draw(7, 3, seed=1))
    assert cirkd_memory(x, x, queue, torch.ones(5, dtype=torch.bool), temperature=0.1) == 0


def test_state_resumes_and_the_projector_learns() -> None:
    memory, (f_t, target) = make(), fed()
    step(memory, f_t, target).sum().backward()
    assert all(p.grad is not None for p in memory.parameters())
    resumed = make()
    resumed.load_state_dict(memory.state_dict())
    torch.testing.assert_close(step(resumed, f_t, target, 1), step(memory, f_t, target, 1))
    torch.testing.assert_close(dict(resumed.named_buffers()), dict(memory.named_buffers()))


def test_a_memory_too_small_for_a_batch_is_refused() -> None:
    def refusal(**given: int) -> str:
        return MEMORY.refuse(pair(), MEMORY.complete(given))

    assert refusal() == ""
    assert "one batch of 4 may add, 64 a class, but got 63" in refusal(pixel_memory=63)
    assert "4 a class, but got 3" in refusal(region_memory=3)
    tiny = pair(student=(6, 1, 1), teacher=(8, 1, 1), batch_size=1)
    assert "BatchNorm needs at least 2 values" in MEMORY.refuse(tiny, MEMORY.complete({}))
