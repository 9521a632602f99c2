from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kd.data.views.policy import Mixing, ViewPolicy
from kd.data.views.views import EpochViews
from kd.logits import StoredLogits
from kd.methods.soft_targets import SoftTargets
from kd.objective import CachedTeacher, Distillation, HardLabels, Objective
from kd.recipe import Recipe
from kd.training.train import _batches
from tests.kd.helpers import CPU, AnyRow, flat, normal

Run = Callable[..., list[AnyRow]]
# One batch of 300 and one of 44, of which 24 is no divisor; plain steps, which are linear in the gradient.
RECIPE = {"epochs": 1, "batch_size": 256, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1}
MIXED = ViewPolicy(crop_padding=1, mixing=Mixing(mixup_alpha=1.0, partners="batch"))


class Counting(nn.Module):
    """A small network without batch norm or dropout that notes how many images pass through it at a time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 10))
        self.counts: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.counts.append(len(x))
        logits_BC: Tensor = self.layers(x)
        return logits_BC


def objective(kind: str) -> Objective:
    if kind == "labels":
        return HardLabels(label_smoothing=0.1)

    def read(views: EpochViews) -> StoredLogits:
        return StoredLogits(normal(300, 10, scale=3), 10)

    return Distillation(SoftTargets(temperature=4, alpha=0.9), CachedTeacher(read, device=CPU), label_smoothing=0)


@pytest.mark.parametrize("kind", ["labels", "teacher"])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize(
    ("micro_batch_size", "counts"),
    [(128, [128, 128, 44]), (100, [100, 100, 56, 44]), (24, [24] * 10 + [16, 24, 20]), (256, [256, 44])],
)
def test_micro_batches_add_up_to_the_whole_batch(
    run: Run, micro_batch_size: int, counts: list[int], clip_norm: float | None, kind: str
) -> None:
    start, whole, parts = Counting(), Counting(), Counting()
    common = {**RECIPE, "clip_norm": clip_norm, "views": MIXED}
    (expected,) = run(whole, Recipe(**common), objective=objective(kind))  # type: ignore[arg-type]
    recipe = Recipe(**common, micro_batch_size=micro_batch_size)  # type: ignore[arg-type]
    (row,) = run(parts, recipe, objective=objective(kind))
    assert parts.counts == counts
    assert whole.counts == [256, 44]
    assert (flat(whole) - flat(start)).abs().max() > 1e-3
    # float32 sums in another order.
    torch.testing.assert_close(flat(parts), flat(whole), atol=1e-7, rtol=1e-5)
    assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-6)
    assert row["train_top1"] == expected["train_top1"]


def test_micro_batches_keep_the_order_of_the_batch(run: Run) -> None:
    """So that what is drawn for each image does not depend on them."""
    shown: dict[int | None, list[Tensor]] = {None: [], 100: []}
    for micro_batch_size, images in shown.items():
        model = Counting()
        model.register_forward_pre_hook(lambda module, inputs, images=images: images.append(inputs[0].clone()))
        run(model, Recipe(**RECIPE, micro_batch_size=micro_batch_size, views=MIXED))  # type: ignore[arg-type]
    assert torch.equal(torch.cat(shown[None]), torch.cat(shown[100]))


def test_a_single_image_left_over_joins_the_batch_before() -> None:
    """Batch norm over maps of one pixel cannot normalise it alone."""
    assert [len(part) for part in _batches(torch.arange(257), 64)] == [64, 64, 64, 65]
    assert [len(part) for part in _batches(torch.arange(258), 64)] == [64, 64, 64, 64, 2]
    assert [len(part) for part in _batches(torch.arange(3), 1)] == [1, 1, 1]
    assert [len(part) for part in _batches(torch.arange(1), 64)] == [1]
    assert torch.equal(torch.cat(_batches(torch.arange(257), 64)), torch.arange(257))
