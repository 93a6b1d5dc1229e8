from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kdscale.losses import Batch, MGDGenerator, mgd
from kdscale.outputs import Outputs

from .pairs import trial_of


class Recorder(nn.Module):
    """In place of a generator: keeps the masks it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = torch.zeros(())

    def forward(self, f_s: Tensor, keep: Tensor) -> Tensor:
        self.keep = keep
        return torch.zeros(len(f_s), 8, 4, 4, dtype=f_s.dtype)


def masks(mask: str, share: float, **batch_fields: int) -> Tensor:
    trial = trial_of("mgd", mask=mask, **{"lambda": share})
    assert isinstance(trial.term, nn.Module)
    recorder = Recorder()
    trial.term.generators[0] = recorder
    trial.term(replace(trial.batch, **batch_fields))  # type: ignore[arg-type]
    return recorder.keep


def test_a_sum_over_the_map_and_a_mean_over_images() -> None:
    f_t = torch.randn(2, 3, 4, 4)
    assert mgd(f_t, f_t) == 0
    torch.testing.assert_close(mgd(f_t + 2, f_t), torch.tensor(4.0 * 3 * 4 * 4))
    with pytest.raises(ValueError, match="must both be"):
        mgd(f_t, f_t[:, :2])


@pytest.mark.parametrize(("mask", "shape"), [("channel", (8, 8, 1, 1)), ("spatial", (8, 1, 4, 4))])
def test_masks_are_whole_channels_or_positions(mask: str, shape: tuple[int, ...]) -> None:
    keep = masks(mask, 0.5)
    assert keep.shape == shape
    assert keep.dtype == torch.float64
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    assert masks(mask, 0.0).min() == 1
    assert masks(mask, 1.0).max() == 0
    # A larger share masks what the smaller one masks, and more.
    assert (masks(mask, 0.75) <= keep).all()
    assert masks(mask, 0.75).sum() < keep.sum() < masks(mask, 0.15).sum()


def test_masks_follow_the_step_and_the_image_not_the_worker() -> None:
    assert torch.equal(masks("channel", 0.5, key=3), masks("channel", 0.5, key=3))
    assert not torch.equal(masks("channel", 0.5, key=3), masks("channel", 0.5, key=4))
    whole = masks("channel", 0.5, key=3, whole=16)
    second = masks("channel", 0.5, key=3, whole=16, first=8)
    assert not torch.equal(whole, second)
    assert torch.equal(whole, masks("channel", 0.5, key=3, whole=16, first=0))


def test_stages_have_different_masks_from_one_draw() -> None:
    trial = trial_of("mgd", stages="2 3", **{"lambda": 0.5})
    assert isinstance(trial.term, nn.Module)
    seen: list[Tensor] = []
    for generator in trial.term.generators:
        generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    trial.term(trial.batch)
    assert [tuple(keep.shape) for keep in seen] == [(8, 7, 1, 1), (8, 8, 1, 1)]
    assert not torch.equal(seen[0], seen[1][:, :7])


def test_the_aligned_map_is_masked() -> None:
    generator = MGDGenerator(3, 5)
    f_s = torch.randn(2, 3, 4, 4)
    nothing = generator(f_s, torch.zeros(2, 5, 1, 1))
    # Biases alone are left, the same for both images.
    assert torch.equal(nothing[0], nothing[1])
    keep = torch.tensor([1.0, 0, 1, 0, 1]).view(1, 5, 1, 1)
    torch.testing.assert_close(
        generator(f_s, keep), generator.generate(generator.align(f_s) * keep)
    )
    assert isinstance(MGDGenerator(5, 5).align, nn.Identity)
    assert len(list(MGDGenerator(5, 5).parameters())) == 4


def test_without_a_mask_the_generator_can_learn_the_teacher() -> None:
    trial = trial_of("mgd", **{"lambda": 0.0})
    assert isinstance(trial.term, nn.Module)
    optimiser = torch.optim.Adam(trial.term.parameters(), lr=0.01)
    values = []
    for _ in range(40):
        optimiser.zero_grad()
        value = trial.term(trial.batch)
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]


def test_the_batch_of_two_workers_is_that_of_one() -> None:
    trial = trial_of("mgd")
    batch = trial.batch

    def half(rows: slice) -> Batch:
        def part(outputs: Outputs) -> Outputs:
            stages = {k: stage[rows] for k, stage in outputs.stages.items()}
            return replace(outputs, logits=outputs.logits[rows], stages=stages)

        return replace(
            batch,
            student=part(batch.student),
            teacher=part(batch.teacher),
            target=batch.target[rows],
            first=rows.start,
            whole=8,
        )

    halves = [trial.term(half(slice(start, start + 4))) for start in (0, 4)]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, trial.term(batch))
