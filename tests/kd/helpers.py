"""Plain functions that several test files of `kd` use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd.data.dataset import Dataset, DatasetMeta, Split, prepare
from kd.data.reading.digits import Digits
from kd.data.views.pixels import Pixels
from kd.data.views.policy import ViewPolicy
from kd.data.views.views import EpochViews, Labels, ViewStream
from kd.logits import StoredLogits, logits_to_bytes, open_logits
from kd.methods.method import Seen
from kd.models.build import on_device
from kd.objective import HardLabels, Loss, Objective
from kd.recipe import Recipe
from kd.training.state import TrainState
from kd.training.train import train

CPU = torch.device("cpu")
AnyRow = dict[str, Any]
MADE_FROM = "0123456789abcdef" * 2  # a fingerprint

# Of no byte's value: a pixel is never 0 once normalised, unless something made it so.
COLOURS = DatasetMeta(
    name="noise", classes=10, channels=3, mean=(0.4911, 0.4817, 0.4462), std=(0.247, 0.243, 0.261), fingerprint=""
)
GREYS = DatasetMeta(name="noise", classes=10, channels=1, mean=(0.4911,), std=(0.247,), fingerprint="")


def noise(count: int, *, channels: int = 3, size: tuple[int, int] = (8, 8)) -> Split:
    """Noise images: every pixel tells which image and place it came from, as good as surely."""
    rng = np.random.default_rng(0)
    images_NHWC = rng.integers(0, 256, (count, *size, channels), dtype=np.uint8)
    return Split(torch.from_numpy(images_NHWC), torch.from_numpy(rng.integers(0, 10, count)))


def stream(split: Split, views: ViewPolicy, *, size: int | None = None) -> ViewStream:
    """Views of noise, normalised."""
    meta = {1: GREYS, 3: COLOURS}[split.images_NHWC.shape[3]]
    return ViewStream(split, views, Pixels.of(meta, size=size, device=CPU), device=CPU)


def whole(epoch: EpochViews) -> Tensor:
    return epoch.batch(torch.arange(len(epoch)))


def load_digits() -> Dataset:
    """300 / 100 / 100 real digits."""
    meta, arrays = prepare(Digits(), Digits.info, train_size=300, val_size=100, test_size=100, split_seed=0)
    splits = {
        name: Split(torch.from_numpy(arrays[f"{name}_images"]), torch.from_numpy(arrays[f"{name}_labels"]))
        for name in ("train", "val", "test")
    }
    return Dataset(meta, **splits)


def views_of(data: Dataset, views: ViewPolicy, *, size: int | None = None) -> ViewStream:
    """The views of a data set's training split."""
    return ViewStream(data.train, views, Pixels.of(data.meta, size=size, device=CPU), device=CPU)


def linear(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def noisy_model(seed: int) -> nn.Sequential:
    """A model of 8 x 8 grey images with a convolution, batch norm and dropout, its weights drawn from a seed. A bias
    before batch norm has no gradient but rounding, which AdamW scales up."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * 4 * 4, 10),
    )


def run(model: nn.Module, recipe: Recipe, *, data: Dataset, **options: Any) -> list[AnyRow]:
    """`train` on a data set, from labels unless told otherwise."""
    defaults: dict[str, Any] = {
        "objective": HardLabels(label_smoothing=recipe.label_smoothing),
        "seed": 0,
        "evaluate": lambda model: {},
        "views": views_of(data, recipe.views),
    }
    return [dict(row) for row in train(on_device(model, CPU), recipe=recipe, **(defaults | options))]


def loss_of(objective: Objective, logits_BC: Tensor, labels: Labels, *, index_B: Tensor) -> Tensor:
    """Of a student's logits alone."""
    seen = Seen(logits_BC)
    return objective(seen, labels, index_B=index_B, key=("batch",), beside=nn.Module()).total


def normal(samples: int, classes: int, *, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(samples, classes, generator=torch.Generator().manual_seed(seed)) * scale


def through_a_file(stored: StoredLogits, path: Path) -> StoredLogits:
    path.write_bytes(logits_to_bytes(stored, fingerprint=MADE_FROM))
    return open_logits(path, fingerprint=MADE_FROM, samples=len(stored), classes=stored.classes)


def same_logits(a: StoredLogits, b: StoredLogits) -> bool:
    """Equal in type and bits."""
    pairs = ((a.values, b.values), (a.top_NK, b.top_NK), (a.rest_N2, b.rest_N2))
    return a.classes == b.classes and all(
        x is y is None or (x is not None and y is not None and x.dtype == y.dtype and torch.equal(x, y))
        for x, y in pairs
    )


def untimed(curve: list[AnyRow]) -> list[AnyRow]:
    return [{k: v for k, v in row.items() if not k.startswith("seconds_")} for row in curve]


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def tensors_in(state: TrainState) -> Iterator[Tensor]:
    """All weights of a state and of its optimizer."""
    yield from state.model.values()
    yield from (state.averaged or {}).values()
    for of_parameter in state.optimizer["state"].values():
        yield from (value for value in of_parameter.values() if isinstance(value, Tensor))


class Watching(HardLabels):
    """Hard labels that note the views of every epoch and the samples of every batch."""

    def __init__(self) -> None:
        super().__init__(label_smoothing=0)
        self.epochs: list[EpochViews] = []
        self.batches: list[list[list[int]]] = []

    def start_epoch(self, views: EpochViews, *, progress: float) -> None:
        self.epochs.append(views)
        self.batches.append([])

    def __call__(self, student: Seen, labels: Labels, *, index_B: Tensor, **facts: Any) -> Loss:
        self.batches[-1].append(index_B.tolist())
        return super().__call__(student, labels, index_B=index_B, **facts)
