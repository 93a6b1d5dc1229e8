"""Every dense term trains a small network on a small map task."""

import pytest
import torch
from torch import Tensor, nn

from kdscale.losses import METHODS, Batch, PairShapes
from kdscale.losses.dense import DENSE_METHODS
from kdscale.outputs import Outputs, OutputShapes
from kdscale.records import Value

CLASSES, GRID, STEPS = 4, 8, 15
SMALL: dict[str, dict[str, Value]] = {
    "attnfd": {"stages": "all"},
    "ldrld_candidate": {"depth": 2},
    "maskd": {"stage_1": 0.0},
    "skd_holistic": {"width": 4},
    "cirkd_memory": {"pixel_memory": 200, "region_memory": 50, "pixel_contrast": 200},
    "rdd": {"mask": "or"},
}
BOUNDED_BELOW = {"skd_pixel", "rdd"}
"""Cross-entropies, which a perfect student does not bring to zero."""


class Network(nn.Module):
    """Two stages and a 1x1 classifier, all at half the image's resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.body = nn.Conv2d(width, width + 2, 3, padding=1)
        self.classifier = nn.Conv2d(width + 2, CLASSES, 1)
        shapes = ((width, GRID, GRID), (width + 2, GRID, GRID))
        self.shapes = OutputShapes(
            CLASSES, width + 2, stages=shapes, map=shapes[1], linear=True, dense=True
        )

    def forward(self, images: Tensor) -> Outputs:
        first = torch.relu(self.stem(images))
        second = torch.relu(self.body(first))
        return Outputs(self.classifier(second), map=second, stages={0: first, 1: second})


@pytest.mark.parametrize("name", DENSE_METHODS)
def test_loss_is_finite_and_falls(name: str) -> None:
    torch.manual_seed(0)
    method = METHODS[name]
    student, teacher = Network(6), Network(8)
    with torch.no_grad():
        teacher.classifier.weight.mul_(8)
    images = torch.randn(4, 3, 2 * GRID, 2 * GRID)
    with torch.no_grad():
        of_teacher = teacher(images)
    target = of_teacher.logits.argmax(1).repeat_interleave(2, 1).repeat_interleave(2, 2)
    target[:, :3] = -1
    shapes = PairShapes(student.shapes, teacher.shapes, len(images))
    hyperparameters = method.complete(SMALL.get(name, {}))
    assert method.refuse(shapes, hyperparameters) == ""
    term = method.build(shapes, hyperparameters)
    parameters = list(student.parameters())
    if isinstance(term, nn.Module):
        parameters += term.parameters()
    optimiser = torch.optim.Adam(parameters, lr=2e-2)
    before = [parameter.detach().clone() for parameter in student.stem.parameters()]

    losses = []
    for step in range(STEPS):
        batch = Batch(student(images), of_teacher, target, epoch=1, epochs=2, key=step)
        loss = term(batch)
        assert torch.isfinite(loss)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    moved = zip(before, student.stem.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved)
    if name == "skd_holistic":
        return  # a game of two, with no loss to fall
    assert losses[-1] < (0.95 if name in BOUNDED_BELOW else 0.8) * losses[0], losses
